-- Dates, times, intervals.
SELECT DATE '2026-03-01' - DATE '2026-02-01'
SELECT DATE '2026-03-01' + 1
SELECT DATE '2026-03-01' - 1
SELECT 1 + DATE '2026-03-01'
SELECT DATE '2026-01-31' + interval '1 month'
SELECT DATE '2024-02-29' + interval '1 year'
SELECT DATE '2026-03-31' - interval '1 month'
SELECT DATE '2026-01-01' + TIME '12:00'
SELECT TIMESTAMP '2026-03-01 12:00' - TIMESTAMP '2026-02-01 06:00'
SELECT TIMESTAMP '2026-02-01' - TIMESTAMP '2026-02-02 01:02:03.5'
SELECT TIMESTAMPTZ '2026-03-01 12:00+00' - TIMESTAMPTZ '2026-02-01 06:00+00'
SELECT TIMESTAMP '2026-03-01' - DATE '2026-02-01'
SELECT DATE '2026-03-01' - TIMESTAMP '2026-02-01 12:00'
SELECT TIMESTAMP '2026-01-31 10:00' + interval '1 month'
SELECT TIMESTAMP '2026-01-31 10:00' + interval '1 month 1 day 1 hour'
SELECT TIMESTAMP '2026-01-01' - interval '1 second'
SELECT TIMESTAMP '2026-01-01' + interval '1.5 days'
SELECT TIMESTAMP '2026-01-01' + interval '0.5 month'
SELECT interval '1 year 2 mons 3 days 04:05:06.789'
SELECT interval '-1 day'
SELECT interval '1 day -1 hour'
SELECT interval '25 hours'
SELECT interval '1 week'
SELECT interval '1-2'
SELECT interval '1 2:03:04'
SELECT interval 'P1Y2M3DT4H5M6S'
SELECT interval '90 minutes'
SELECT interval '1 decade'
SELECT interval '1.5 years'
SELECT interval '0'
SELECT interval '1 microsecond'
SELECT interval '1 millisecond'
SELECT interval '100 days'
SELECT interval '1 day ago'
SELECT interval '1' day
SELECT interval '2' hour
SELECT interval '1-6' year to month
SELECT interval '10' minute
SELECT interval '3' month
SELECT interval '1 day' * 2
SELECT interval '1 day' / 2
SELECT 1.5 * interval '1 hour'
SELECT interval '1 month' * 1.5
SELECT interval '1 day' * -1
SELECT interval '1 day' + interval '2 hours'
SELECT interval '1 month' - interval '1 day'
SELECT -interval '1 day 2 hours'
SELECT interval '24 hours' = interval '1 day'
SELECT interval '30 days' = interval '1 month'
SELECT interval '1 hour' < interval '1 day'
SELECT interval '1 day'::text
SELECT interval '1 hour'::text
SELECT '1 day'::interval
SELECT interval '1 day' / 0
SELECT extract(year FROM DATE '2026-03-08')
SELECT extract(month FROM DATE '2026-03-08')
SELECT extract(day FROM DATE '2026-03-08')
SELECT extract(dow FROM DATE '2026-03-08')
SELECT extract(isodow FROM DATE '2026-03-08')
SELECT extract(doy FROM DATE '2026-03-08')
SELECT extract(week FROM DATE '2027-01-01')
SELECT extract(isoyear FROM DATE '2027-01-01')
SELECT extract(quarter FROM DATE '2026-03-08')
SELECT extract(century FROM DATE '2026-03-08')
SELECT extract(decade FROM DATE '2026-03-08')
SELECT extract(millennium FROM DATE '2026-03-08')
SELECT extract(julian FROM DATE '2026-03-08')
SELECT extract(epoch FROM DATE '2026-03-08')
SELECT extract(hour FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(minute FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(second FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(milliseconds FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(microseconds FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(epoch FROM TIMESTAMP '2026-03-08 12:34:56.789')
SELECT extract(epoch FROM TIMESTAMPTZ '2026-03-08 12:34:56.789+02')
SELECT extract(timezone FROM TIMESTAMPTZ '2026-03-08 12:00+02')
SELECT extract(timezone_hour FROM TIMESTAMPTZ '2026-03-08 12:00+02')
SELECT extract(epoch FROM interval '1 day 2 hours')
SELECT extract(day FROM interval '40 days 30 hours')
SELECT extract(hour FROM interval '30 hours')
SELECT extract(month FROM interval '14 months')
SELECT extract(year FROM interval '14 months')
SELECT date_part('year', DATE '2026-03-08')
SELECT date_part('dow', TIMESTAMP '2026-03-08 12:00')
SELECT date_part('second', TIMESTAMP '2026-03-08 12:34:56.789')
SELECT date_part('epoch', TIMESTAMP '2026-03-08 12:00')
SELECT date_part('day', TIMESTAMP '2026-03-08' - TIMESTAMP '2026-03-01')
SELECT date_part('hour', interval '5 hours 30 min')
SELECT pg_typeof(extract(year FROM DATE '2026-01-01'))
SELECT pg_typeof(date_part('year', DATE '2026-01-01'))
SELECT date_trunc('year', TIMESTAMP '2026-08-15 12:34:56.789')
SELECT date_trunc('quarter', TIMESTAMP '2026-08-15 12:34:56')
SELECT date_trunc('month', TIMESTAMP '2026-08-15 12:34:56')
SELECT date_trunc('week', TIMESTAMP '2026-08-15 12:34:56')
SELECT date_trunc('day', TIMESTAMP '2026-08-15 12:34:56')
SELECT date_trunc('hour', TIMESTAMP '2026-08-15 12:34:56.789')
SELECT date_trunc('minute', TIMESTAMP '2026-08-15 12:34:56.789')
SELECT date_trunc('second', TIMESTAMP '2026-08-15 12:34:56.789')
SELECT date_trunc('milliseconds', TIMESTAMP '2026-08-15 12:34:56.789123')
SELECT date_trunc('microseconds', TIMESTAMP '2026-08-15 12:34:56.789123')
SELECT date_trunc('decade', TIMESTAMP '2026-08-15')
SELECT date_trunc('century', TIMESTAMP '2026-08-15')
SELECT date_trunc('millennium', TIMESTAMP '2026-08-15')
SELECT date_trunc('month', DATE '2026-08-15')
SELECT date_trunc('week', DATE '2026-01-01')
SELECT date_trunc('day', TIMESTAMPTZ '2026-03-08 12:00+00')
SELECT date_trunc('day', TIMESTAMPTZ '2026-03-08 12:00+00', 'America/Los_Angeles')
SELECT date_trunc('month', TIMESTAMPTZ '2026-03-01 03:00+00', 'America/New_York')
SELECT date_trunc('hour', interval '1 day 05:45:00')
SELECT date_trunc('day', interval '3 days 5 hours')
SELECT date_trunc('MONTH', TIMESTAMP '2026-08-15')
SELECT date_trunc('months', TIMESTAMP '2026-08-15')
SELECT date_trunc('day', sold_at) FROM sales ORDER BY id
SELECT date_trunc('month', sold_at), count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT date_trunc('day', sold_at, 'America/Los_Angeles'), count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT date_trunc('week', day), count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT date_trunc('hour', ts), date_trunc('quarter', d), date_trunc('year', ts) FROM kinds ORDER BY id
SELECT date_bin('15 minutes', TIMESTAMP '2026-03-08 12:34:56', TIMESTAMP '2001-01-01')
SELECT date_bin('1 hour', TIMESTAMPTZ '2026-03-08 12:34:56+00', TIMESTAMPTZ '2001-01-01 00:30+00')
SELECT date_bin('15 minutes', sold_at, '2001-01-01') FROM sales ORDER BY id
SELECT date_bin('1 month', TIMESTAMP '2026-03-08', TIMESTAMP '2001-01-01')
SELECT age(TIMESTAMP '2026-03-08', TIMESTAMP '2024-02-29')
SELECT age(TIMESTAMP '2026-03-01', TIMESTAMP '2026-01-31')
SELECT age(TIMESTAMP '2026-01-01 12:00', TIMESTAMP '2026-01-02')
SELECT age(DATE '2026-03-08', DATE '2025-12-25')
SELECT justify_days(interval '35 days')
SELECT justify_hours(interval '27 hours')
SELECT justify_interval(interval '1 month -1 hour')
SELECT make_date(2026, 2, 28)
SELECT make_timestamp(2026, 2, 28, 12, 34, 56.789)
SELECT make_time(12, 34, 56.5)
SELECT make_date(-44, 3, 15)
SELECT make_timestamptz(2026, 2, 28, 12, 34, 56.789)
SELECT make_timestamptz(2026, 2, 28, 12, 34, 56, 'America/Los_Angeles')
SELECT make_interval(days => 10)
SELECT make_interval(1, 2, 3, 4, 5, 6, 7.5)
SELECT make_interval(hours => 5, secs => 1.5)
SELECT make_interval()
SELECT now() - interval '1 day' < now()
SELECT current_date <= now()::date
SELECT current_timestamp = now()
SELECT localtimestamp = now()::timestamp
SELECT now() = transaction_timestamp()
SELECT statement_timestamp() >= now()
SELECT clock_timestamp() >= now()
SELECT (TIMESTAMP '2026-01-01', TIMESTAMP '2026-02-01') OVERLAPS (TIMESTAMP '2026-01-15', TIMESTAMP '2026-03-01')
SELECT (DATE '2026-01-01', DATE '2026-01-10') OVERLAPS (DATE '2026-01-10', DATE '2026-01-20')
SELECT (DATE '2026-01-01', interval '10 days') OVERLAPS (DATE '2026-01-05', interval '1 day')
SELECT generate_series(TIMESTAMP '2026-01-30', TIMESTAMP '2026-02-02', interval '1 day')
SELECT generate_series(TIMESTAMPTZ '2026-03-07 12:00+00', TIMESTAMPTZ '2026-03-09 12:00+00', interval '12 hours')
SELECT generate_series(DATE '2026-01-30', DATE '2026-02-02', '1 day')
SELECT generate_series(DATE '2026-01-30', DATE '2026-02-02', '1 day')::date AS day
SELECT * FROM generate_series(TIMESTAMP '2026-01-31', TIMESTAMP '2026-05-31', '1 month') AS m
SELECT g::date, count(s.id) FROM generate_series(DATE '2026-01-30', DATE '2026-02-02', '1 day') AS g LEFT JOIN sales s ON s.day = g::date GROUP BY 1 ORDER BY 1
SELECT isfinite(DATE '2026-01-01')
SELECT isfinite('infinity'::timestamp)
SELECT isfinite(interval '1 day')
SELECT 'infinity'::timestamp > now()::timestamp
SELECT '-infinity'::date < DATE '0001-01-01'
SELECT id FROM sales WHERE sold_at < 'infinity' ORDER BY id
SELECT id FROM sales WHERE day > '-infinity' ORDER BY id
SELECT DATE '2026-01-01' = TIMESTAMP '2026-01-01'
SELECT DATE '2026-01-01' < TIMESTAMPTZ '2026-01-01 00:00:01+00'
SELECT TIMESTAMP '2026-01-01' = TIMESTAMPTZ '2026-01-01 00:00+00'
SELECT DATE '2026-01-31' - 30
SELECT DATE '2026-01-31' - interval '30 days'
SELECT day + 1, day - 1, day - DATE '2026-01-01' FROM sales ORDER BY id
SELECT day + interval '1 month', day - interval '1 day' FROM sales ORDER BY id
SELECT sold_at + interval '1 day', sold_at - interval '1 hour' FROM sales ORDER BY id
SELECT sold_at - TIMESTAMPTZ '2026-01-01 00:00+00' FROM sales ORDER BY id
SELECT sold_at - day FROM sales ORDER BY id
SELECT extract(hour FROM sold_at), extract(dow FROM sold_at), extract(epoch FROM sold_at), extract(second FROM sold_at) FROM sales ORDER BY id
SELECT date_part('month', day), date_part('year', sold_at) FROM sales ORDER BY id
SELECT extract(year FROM d), extract(week FROM d), extract(doy FROM d), extract(isodow FROM d) FROM kinds ORDER BY id
SELECT extract(epoch FROM ts), extract(microseconds FROM ts) FROM kinds ORDER BY id
SELECT extract(century FROM d), extract(decade FROM d), extract(isoyear FROM d) FROM kinds ORDER BY id
SELECT min(sold_at), max(sold_at), min(day), max(day), count(DISTINCT day) FROM sales
SELECT sold_at::date, count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT max(sold_at) - min(sold_at) FROM sales
SELECT avg(sold_at - TIMESTAMPTZ '2026-01-01 00:00+00') FROM sales
SELECT sum(sold_at - TIMESTAMPTZ '2026-01-01 00:00+00') FROM sales WHERE id < 6
SELECT id FROM sales WHERE sold_at >= '2026-11-20' AND sold_at < '2026-11-21' ORDER BY id
SELECT id FROM sales WHERE sold_at BETWEEN '2026-11-01' AND '2026-11-30' ORDER BY id
SELECT id FROM sales WHERE day BETWEEN '2026-01-01' AND '2026-02-28' ORDER BY id
SELECT id FROM sales WHERE sold_at > TIMESTAMP '2026-11-20 08:00' ORDER BY id
SELECT id FROM sales WHERE sold_at::date = '2026-11-20' ORDER BY id
SELECT id FROM sales WHERE day = '2026-02-28'::date ORDER BY id
SELECT id FROM sales WHERE day >= DATE '2026-12-31' - interval '2 months' ORDER BY id
SELECT id FROM sales WHERE extract(year FROM day) = 2026 ORDER BY id
SELECT id FROM sales WHERE date_part('month', sold_at) = 11 ORDER BY id
SELECT id FROM sales WHERE to_char(sold_at, 'YYYY-MM') = '2026-11' ORDER BY id
SELECT id FROM sales WHERE sold_at < day ORDER BY id
SELECT TIMESTAMP '2026-02-28 23:59:60'
SELECT TIMESTAMP '2026-01-01 00:00:00.000001'
SELECT TIME '12:34:56.789'
SELECT TIME '23:59:59' + interval '2 seconds'
SELECT TIME '12:00' - TIME '10:30'
SELECT TIMETZ '12:00+02'
SELECT current_time IS NOT NULL
SELECT localtime IS NOT NULL
SELECT DATE 'today' = current_date
SELECT 'yesterday'::date = current_date - 1
SELECT 'tomorrow'::timestamp = current_date + 1
SELECT 'now'::timestamptz <= now() + interval '1 minute'
SELECT to_timestamp(0)
SELECT to_timestamp(1772971200.5)
SELECT to_timestamp(-1)
SELECT to_date('2026-03-08', 'YYYY-MM-DD')
SELECT to_date('08.03.2026', 'DD.MM.YYYY')
SELECT to_date('Mar 8 2026', 'Mon DD YYYY')
SELECT to_date('20260308', 'YYYYMMDD')
SELECT to_date('2026 067', 'YYYY DDD')
SELECT to_date('26-3-8', 'YY-MM-DD')
SELECT to_date('8 March 2026', 'DD Month YYYY')
SELECT to_date('2026-02-30', 'YYYY-MM-DD')
SELECT to_date('abc', 'YYYY-MM-DD')
SELECT to_timestamp('2026-03-08 12:34:56', 'YYYY-MM-DD HH24:MI:SS')
SELECT to_timestamp('08/03/2026 01:02 PM', 'DD/MM/YYYY HH12:MI AM')
SELECT to_timestamp('2026-03-08 12:34:56.789', 'YYYY-MM-DD HH24:MI:SS.MS')
SELECT to_timestamp('2026-03-08T12:34:56', 'YYYY-MM-DD"T"HH24:MI:SS')
SELECT to_timestamp('2026', 'YYYY')
SELECT to_timestamp('1772971200', 'FM9999999999')
SELECT to_char(TIMESTAMP '2026-03-08 09:05:06.078901', 'YYYY-MM-DD HH24:MI:SS')
SELECT to_char(TIMESTAMP '2026-03-08 09:05:06.078901', 'YYYY-MM')
SELECT to_char(TIMESTAMP '2026-03-08 15:05:06', 'HH12:MI:SS AM')
SELECT to_char(TIMESTAMP '2026-03-08 15:05:06', 'HH:MI am')
SELECT to_char(TIMESTAMP '2026-03-08 09:05:06.078901', 'MS US FF3 FF6')
SELECT to_char(TIMESTAMP '2026-03-08', 'Day, DD Month YYYY')
SELECT to_char(TIMESTAMP '2026-03-08', 'FMDay, FMDD FMMonth YYYY')
SELECT to_char(TIMESTAMP '2026-03-08', 'Dy DAY dy MON mon Mon MONTH')
SELECT to_char(TIMESTAMP '2026-03-08', 'D ID DDD J Q WW IW W CC')
SELECT to_char(TIMESTAMP '2027-01-01', 'IYYY-IW-ID IYY')
SELECT to_char(TIMESTAMP '2026-03-08', 'YY Y YYY Y,YYY')
SELECT to_char(TIMESTAMP '2026-03-08', 'RM rm')
SELECT to_char(TIMESTAMP '2026-03-08 09:05:06', 'SSSS')
SELECT to_char(TIMESTAMP '2026-03-01', 'DDth FMDDth DDTH')
SELECT to_char(TIMESTAMP '2026-03-08', '"Year:" YYYY')
SELECT to_char(TIMESTAMP '2026-03-08', 'YYYYMMDD')
SELECT to_char(TIMESTAMP '2026-03-08', 'xyz MM')
SELECT to_char(TIMESTAMPTZ '2026-03-08 09:05:06+00', 'YYYY-MM-DD"T"HH24:MI:SSOF')
SELECT to_char(TIMESTAMPTZ '2026-03-08 09:05:06+00', 'TZ tz TZH:TZM')
SELECT to_char(DATE '2026-03-08', 'YYYY-MM-DD')
SELECT to_char(DATE '2026-03-08', 'Mon YYYY')
SELECT to_char(DATE '0099-03-08', 'YYYY')
SELECT to_char(DATE '2026-03-08', 'HH24')
SELECT to_char(interval '15 hours 2 minutes 12 seconds', 'HH24:MI:SS')
SELECT to_char(interval '100 hours', 'HH24:MI')
SELECT to_char(interval '3 days 2 hours', 'DD HH24')
SELECT to_char(day, 'YYYY-MM'), count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT to_char(sold_at, 'YYYY-MM-DD HH24:MI') FROM sales ORDER BY id
SELECT to_char(sold_at, 'FMMonth D') FROM sales ORDER BY id
SELECT to_char(d, 'YYYY-MM-DD'), to_char(ts, 'YYYY-MM-DD HH24:MI:SS.US') FROM kinds ORDER BY id
SELECT to_char(125, '999')
SELECT to_char(125, '00000')
SELECT to_char(-125, '999')
SELECT to_char(1234567, '9,999,999')
SELECT to_char(125.8, '999D9')
SELECT to_char(125.8, '999.99')
SELECT to_char(0.5, '0.00')
SELECT to_char(0.5, '.99')
SELECT to_char(0.5, '9.99')
SELECT to_char(12, 'FM999')
SELECT to_char(12, 'FM000')
SELECT to_char(-12, 'S999')
SELECT to_char(12, 'S999')
SELECT to_char(-12, '999S')
SELECT to_char(-12, '999MI')
SELECT to_char(-12, '999PR')
SELECT to_char(1234.5, 'L9,999.99')
SELECT to_char(12345, '999')
SELECT to_char(485, 'RN')
SELECT to_char(485, 'FMRN')
SELECT to_char(1, '9th')
SELECT to_char(482, '999th')
SELECT to_char(12.45, '99V9')
SELECT to_char(0.0004859, '9.99EEEE')
SELECT to_char(1234.567::float8, 'FM9999.99')
SELECT to_char(1234.567::numeric, '9G999D99')
SELECT to_char(0, '999')
SELECT to_char(0, 'FM999.99')
SELECT to_char(0.1, 'FM90.00')
SELECT to_char(price, 'FM999990.00'), to_char(qty, '999') FROM sales ORDER BY id
SELECT to_number('1,234.50', '9,999.99')
SELECT to_number('-12', 'S99')
SELECT to_number('12', '99')
SELECT DATE '2026-01-01' + NULL::int
SELECT NULL::date - DATE '2026-01-01'
SELECT DATE '9999-12-31' + 1
SELECT DATE '0001-01-01' - 1
SELECT DATE '5874897-12-31' + 1
SELECT TIMESTAMP '294276-12-31 23:59:59' + interval '1 second'
SELECT d + 1, d - 1 FROM kinds ORDER BY id
SELECT ts + interval '1 microsecond' FROM kinds ORDER BY id
SELECT d - DATE '1970-01-01' FROM kinds ORDER BY id
SELECT ts - TIMESTAMPTZ '1970-01-01 00:00+00' FROM kinds ORDER BY id
SELECT timestamp '2026-01-01 00:00' + interval '1 day' * 3
SELECT timestamp '2026-01-01' + 2 * interval '12 hours'
SELECT sum(interval '1 hour')
SELECT avg(interval '1 hour')
SELECT max(interval '1 day')
SELECT min(interval '1 day')
SELECT interval '1 mon' + DATE '2026-01-31'
SELECT interval '1 day' + TIMESTAMP '2026-01-01'
SELECT count(*) FROM sales WHERE sold_at > now() - interval '1000 years'
SELECT extract(epoch FROM (TIMESTAMPTZ '2026-03-08 12:00+00' - TIMESTAMPTZ '2026-03-08 11:30+00')) / 60
SELECT date '2026-03-08' + make_interval(days => 3)
SELECT timeofday() IS NOT NULL
SELECT to_char(now(), 'YYYY') = extract(year FROM now())::text
SELECT x FROM (VALUES (INTERVAL '1 month'), (INTERVAL '31 days'), (INTERVAL '29 days'), (INTERVAL '720 hours'), (INTERVAL '-1 day')) v(x) ORDER BY x, x::text
SELECT x, row_number() OVER (ORDER BY x DESC) FROM (VALUES (INTERVAL '1 month'), (INTERVAL '31 days'), (INTERVAL '29 days')) v(x) ORDER BY 2
SELECT array_agg(x::text ORDER BY x) FROM (VALUES (INTERVAL '1 month'), (INTERVAL '31 days'), (INTERVAL '29 days')) v(x)
