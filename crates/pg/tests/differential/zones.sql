-- Time zones.
SELECT TIMESTAMPTZ '2026-03-08 12:00+00' AT TIME ZONE 'America/Los_Angeles'
SELECT TIMESTAMPTZ '2026-03-08 09:59:59+00' AT TIME ZONE 'America/Los_Angeles', TIMESTAMPTZ '2026-03-08 10:00:00+00' AT TIME ZONE 'America/Los_Angeles'
SELECT TIMESTAMPTZ '2026-11-01 08:30+00' AT TIME ZONE 'America/Los_Angeles', TIMESTAMPTZ '2026-11-01 09:30+00' AT TIME ZONE 'America/Los_Angeles'
SELECT TIMESTAMP '2026-03-08 02:30' AT TIME ZONE 'America/Los_Angeles'
SELECT TIMESTAMP '2026-11-01 01:30' AT TIME ZONE 'America/Los_Angeles'
SELECT TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'Europe/Zurich', TIMESTAMP '2026-01-01 12:00' AT TIME ZONE 'Europe/Zurich'
SELECT TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'UTC', TIMESTAMP '2026-07-01 12:00' AT TIME ZONE '+02', TIMESTAMP '2026-07-01 12:00' AT TIME ZONE '-05:30'
SELECT TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'PST', TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'PDT', TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'EST5EDT'
SELECT TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE interval '-08:00'
SELECT TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE 'UTC' AT TIME ZONE 'America/New_York'
SELECT TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE 'utc', TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE 'america/new_york'
SELECT DATE '2026-07-01' AT TIME ZONE 'America/New_York'
SELECT timezone('America/Los_Angeles', TIMESTAMPTZ '2026-07-01 12:00+00'), timezone('America/Los_Angeles', TIMESTAMP '2026-07-01 12:00')
SELECT pg_typeof(TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE 'UTC'), pg_typeof(TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'UTC')
SELECT sold_at AT TIME ZONE 'America/Los_Angeles' FROM sales ORDER BY id
SELECT (sold_at AT TIME ZONE 'America/Los_Angeles')::date, count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT id FROM sales WHERE (sold_at AT TIME ZONE 'America/Los_Angeles')::date = '2026-11-19' ORDER BY id
SELECT id FROM sales WHERE (sold_at AT TIME ZONE 'America/Los_Angeles')::date <= '2026-11-20' ORDER BY id
SELECT extract(hour FROM sold_at AT TIME ZONE 'America/Los_Angeles') FROM sales ORDER BY id
SELECT date_trunc('day', sold_at AT TIME ZONE 'America/Los_Angeles'), count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT date_trunc('day', sold_at AT TIME ZONE 'America/Los_Angeles') AT TIME ZONE 'America/Los_Angeles' FROM sales ORDER BY id
SELECT to_char(sold_at AT TIME ZONE 'Europe/Zurich', 'YYYY-MM-DD HH24:MI') FROM sales ORDER BY id
SELECT s.id, s.sold_at AT TIME ZONE st.tz FROM sales s JOIN stores st ON st.id = s._site ORDER BY s.id
SELECT ts AT TIME ZONE 'UTC', ts AT TIME ZONE 'Asia/Kolkata' FROM kinds WHERE id NOT IN (2, 3) ORDER BY id
SELECT ts AT TIME ZONE 'America/New_York' FROM kinds ORDER BY id
SELECT d AT TIME ZONE 'America/New_York' FROM kinds WHERE id > 3 ORDER BY id
SELECT ts::timestamp AT TIME ZONE 'America/New_York' FROM kinds WHERE id > 3 ORDER BY id
SELECT now() AT TIME ZONE 'UTC' = localtimestamp
SET TIME ZONE 'America/Los_Angeles' ;; SHOW timezone
SET TIME ZONE 'America/Los_Angeles' ;; SHOW TIME ZONE
SET TIME ZONE 'America/Los_Angeles' ;; SELECT current_setting('TimeZone')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '2026-07-01 12:00+00'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '2026-07-01 12:00'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at::text FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at::date FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at::timestamp FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT day::timestamptz FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT date_trunc('day', sold_at) FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT date_trunc('month', sold_at), count(*) FROM sales GROUP BY 1 ORDER BY 1
SET TIME ZONE 'America/Los_Angeles' ;; SELECT extract(hour FROM sold_at), extract(epoch FROM sold_at) FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT to_char(sold_at, 'YYYY-MM-DD HH24:MI TZH') FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT to_char(sold_at, 'YYYY-MM-DD HH24:MI TZ') FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at >= '2026-11-20' ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at >= DATE '2026-11-20' ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at::date = '2026-11-19' ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at BETWEEN '2026-11-20' AND '2026-11-20 23:59:59' ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at = TIMESTAMP '2026-11-20 00:00' ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at < day ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '2026-03-07 12:00-08' + interval '1 day', TIMESTAMPTZ '2026-03-07 12:00-08' + interval '24 hours'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at + interval '1 day' FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '2026-03-09 00:00-07' - TIMESTAMPTZ '2026-03-08 00:00-08'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT generate_series(TIMESTAMPTZ '2026-03-07 00:00-08', TIMESTAMPTZ '2026-03-10 00:00-07', interval '1 day')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMP '2026-03-08 02:30'::timestamptz, TIMESTAMP '2026-11-01 01:30'::timestamptz
SET TIME ZONE 'America/Los_Angeles' ;; SELECT DATE '2026-03-08'::timestamptz, TIMESTAMPTZ '2026-03-08 07:59+00'::date
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '2026-07-01 12:00+00' AT TIME ZONE 'UTC', TIMESTAMP '2026-07-01 12:00' AT TIME ZONE 'UTC'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT make_timestamptz(2026, 7, 1, 12, 0, 0), to_timestamp(0), to_timestamp('2026-07-01', 'YYYY-MM-DD')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT TIMESTAMPTZ '1900-01-01 00:00+00', TIMESTAMPTZ '1880-01-01 00:00+00'
SET TIME ZONE 'America/Los_Angeles' ;; SELECT ts FROM kinds ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT array_agg(sold_at ORDER BY id) FROM sales
SET TIME ZONE 'America/Los_Angeles' ;; SELECT min(sold_at), max(sold_at) FROM sales
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at || '' FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT 'epoch'::timestamptz, now()::date = current_date
SET TIME ZONE 'America/Los_Angeles' ;; SELECT extract(timezone FROM TIMESTAMPTZ '2026-07-01 12:00+00')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT date_bin('1 day', TIMESTAMPTZ '2026-07-01 12:00+00', TIMESTAMPTZ '2026-01-01')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT age(TIMESTAMPTZ '2026-07-01 12:00+00', TIMESTAMPTZ '2026-01-01 12:00+00')
SET TIME ZONE 'America/Los_Angeles' ;; SELECT coalesce(sold_at, '2026-01-01') FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT sold_at AT TIME ZONE 'Europe/Zurich' FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT CASE WHEN sold_at > '2026-11-20' THEN 'late' ELSE 'early' END FROM sales ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT id FROM sales WHERE sold_at IN ('2026-11-20', '2026-11-20 00:00-08') ORDER BY id
SET TIME ZONE 'America/Los_Angeles' ;; SELECT extract(dow FROM sold_at), count(*) FROM sales GROUP BY 1 ORDER BY 1
SET TIME ZONE 'America/Los_Angeles' ;; RESET TIME ZONE ;; SELECT TIMESTAMPTZ '2026-07-01 12:00+00'
SET TIME ZONE 'America/Los_Angeles' ;; RESET ALL ;; SHOW timezone
SET TIME ZONE 'America/Los_Angeles' ;; DISCARD ALL ;; SHOW timezone
SET TIME ZONE LOCAL ;; SHOW timezone
SET TIME ZONE DEFAULT ;; SHOW timezone
SET timezone TO 'Europe/Zurich' ;; SELECT TIMESTAMPTZ '2026-07-01 12:00+00'
SET timezone = 'Europe/Zurich' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TimeZone = 'UTC' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET "TimeZone" = 'Europe/Zurich' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET SESSION TIME ZONE 'Europe/Zurich' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE -8 ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE '+02:00' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE 'Asia/Kolkata' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00', TIMESTAMPTZ '2026-01-01 12:00+00'::text
SET TIME ZONE 'Mars/Phobos' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE 'Europe/Zurich' ;; SET TIME ZONE 'Mars/Phobos' ;; SHOW timezone
BEGIN ;; SET LOCAL TIME ZONE 'Europe/Zurich' ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
BEGIN ;; SET LOCAL timezone = 'Europe/Zurich' ;; COMMIT ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
BEGIN ;; SET timezone = 'Europe/Zurich' ;; ROLLBACK ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
BEGIN ;; SET timezone = 'Europe/Zurich' ;; COMMIT ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SELECT set_config('timezone', 'Europe/Zurich', false) ;; SELECT TIMESTAMPTZ '2026-01-01 12:00+00'
SET TIME ZONE 'Australia/Sydney' ;; SELECT sold_at::date, count(*) FROM sales GROUP BY 1 ORDER BY 1
SET TIME ZONE 'Europe/Zurich' ;; SELECT (SELECT max(sold_at) FROM sales)::date
SET TIME ZONE 'Europe/Zurich' ;; WITH w AS (SELECT date_trunc('day', sold_at) AS d FROM sales) SELECT d, count(*) FROM w GROUP BY d ORDER BY d
SET TIME ZONE 'Europe/Zurich' ;; SELECT sold_at::time FROM sales ORDER BY id
SET TIME ZONE 'Europe/Zurich' ;; SELECT '2026-07-01 12:00'::timestamptz, CAST('2026-07-01' AS timestamptz), timestamptz '2026-07-01 12:00 UTC'
SET TIME ZONE 'Europe/Zurich' ;; SELECT sold_at = '2026-11-20 09:00' FROM sales ORDER BY id
SET TIME ZONE 'Europe/Zurich' ;; SELECT localtimestamp = now() AT TIME ZONE 'Europe/Zurich', current_date = (now() AT TIME ZONE 'Europe/Zurich')::date
SET DateStyle = 'German' ;; SELECT DATE '2026-03-08'
SET datestyle = 'ISO, DMY' ;; SELECT '08.03.2026'::date
SET IntervalStyle = 'iso_8601' ;; SELECT interval '1 day'
SET extra_float_digits = 0 ;; SELECT 0.1::float8 + 0.2::float8
SET bytea_output = 'escape' ;; SELECT '\x41ff'::bytea
SHOW DateStyle
SHOW IntervalStyle
SHOW client_encoding
SHOW standard_conforming_strings
SHOW integer_datetimes
SHOW extra_float_digits
SHOW transaction_isolation
SHOW server_encoding
SELECT name FROM pg_timezone_names WHERE name = 'Europe/Zurich'
