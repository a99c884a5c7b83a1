-- Literals and casts between types.
SELECT 1
SELECT 1, 1
SELECT 1.5
SELECT 1.50
SELECT .5
SELECT 5.
SELECT 1e3
SELECT 1.5e-3
SELECT 2147483647
SELECT 2147483648
SELECT -2147483648
SELECT 9223372036854775807
SELECT 9223372036854775808
SELECT -9223372036854775808
SELECT 12345678901234567890123456789012345678
SELECT 0.1 + 0.2
SELECT 'text'
SELECT 'it''s'
SELECT ''
SELECT E'a\nb\t\\'
SELECT E'\x41\u00e9'
SELECT U&'\00e9'
SELECT $$dollar 'quoted'$$
SELECT B'101'
SELECT X'1F'
SELECT true, false, NULL
SELECT NULL::int
SELECT DATE '2026-02-28'
SELECT TIMESTAMP '2026-02-28 12:34:56.789'
SELECT TIMESTAMPTZ '2026-02-28 12:34:56.789+02'
SELECT TIME '12:34:56'
SELECT INTERVAL '1 day'
SELECT 2.5::int
SELECT 3.5::int
SELECT 0.5::int
SELECT 1.5::int
SELECT -2.5::int
SELECT (-2.5)::int
SELECT 2.4::int
SELECT 2.6::int
SELECT 2.5::numeric::bigint
SELECT (-0.5)::numeric::int
SELECT 2.5::float8::int
SELECT 3.5::float8::int
SELECT (-2.5)::float8::int
SELECT 0.5::float8::int
SELECT 1.5::float8::int
SELECT 2.5::float4::int
SELECT 1e10::int
SELECT 1e10::bigint
SELECT 1e20::bigint
SELECT 'NaN'::float8::int
SELECT 'Infinity'::float8::bigint
SELECT 32768::smallint
SELECT 32767::smallint
SELECT (-32768)::smallint
SELECT 2147483648::int
SELECT 9223372036854775807::int
SELECT '42'::int
SELECT ' 42 '::int
SELECT '+42'::int
SELECT '-42'::bigint
SELECT '4.2'::int
SELECT ''::int
SELECT 'abc'::int
SELECT '99999999999'::int
SELECT '1e3'::int
SELECT '1e3'::numeric
SELECT '1e3'::float8
SELECT '1.50'::numeric
SELECT '1.555'::numeric(10,2)
SELECT '1.545'::numeric(10,2)
SELECT '-1.545'::numeric(10,2)
SELECT 123.456::numeric(5,1)
SELECT 12345.6::numeric(4,1)
SELECT 99.995::numeric(4,2)
SELECT 1::numeric(5,2)
SELECT 1::numeric
SELECT 1.10::numeric
SELECT 0.1::float8::numeric
SELECT 1e20::float8::numeric
SELECT 123456789.123456789::float8::numeric
SELECT 0.1::float4::float8
SELECT 0.1::float8::float4
SELECT 16777217::float4
SELECT 9007199254740993::float8
SELECT 1e400::float8
SELECT '1e400'::float8
SELECT '1e-400'::float8
SELECT 'abc'::float8
SELECT 'Infinity'::float8
SELECT '-Infinity'::float8
SELECT 'NaN'::float8
SELECT 'inf'::float8
SELECT ' 1.5 '::float8
SELECT 'NaN'::numeric
SELECT 1::text
SELECT (-1)::text
SELECT 1.50::text
SELECT 1.50::numeric(10,3)::text
SELECT 1e20::float8::text
SELECT 1e-5::float8::text
SELECT 0.0001::float8::text
SELECT 123456789012345.0::float8::text
SELECT 1234567890123456.0::float8::text
SELECT 12345678901234567.0::float8::text
SELECT true::text
SELECT false::text
SELECT DATE '2026-01-05'::text
SELECT TIMESTAMP '2026-01-05 01:02:03'::text
SELECT TIMESTAMP '2026-01-05 01:02:03.100'::text
SELECT TIMESTAMPTZ '2026-01-05 01:02:03+00'::text
SELECT '\x41ff'::bytea::text
SELECT 't'::boolean
SELECT 'yes'::boolean
SELECT 'on'::boolean
SELECT '1'::boolean
SELECT 'f'::boolean
SELECT 'no'::boolean
SELECT 'off'::boolean
SELECT '0'::boolean
SELECT 'tr'::boolean
SELECT 'FALSE'::boolean
SELECT 'maybe'::boolean
SELECT ''::boolean
SELECT 1::boolean
SELECT 0::boolean
SELECT 5::boolean
SELECT true::int
SELECT false::int
SELECT true::bigint
SELECT 1.5::boolean
SELECT 'hello'::varchar(3)
SELECT 'hello'::varchar
SELECT 'héllo'::varchar(2)
SELECT 'hello'::char(3)
SELECT 'hi'::char(5)
SELECT 'hi'::char(5) || '!'
SELECT length('hi'::char(5))
SELECT 'hi'::char
SELECT 'hi'::char = 'h'
SELECT 'a '::char(3) = 'a'
SELECT 12345::varchar(3)
SELECT 1.5::varchar(2)
SELECT CAST('abc' AS varchar(2))
SELECT CAST('abc' AS character varying(2))
SELECT CAST('abc' AS character(2))
SELECT CAST(t AS varchar(3)) FROM kinds ORDER BY id
SELECT t::varchar(2) || '.' FROM kinds ORDER BY id
SELECT '\x41'::bytea
SELECT '\x'::bytea
SELECT '\xDEADbeef'::bytea
SELECT 'abc'::bytea
SELECT '\x4'::bytea
SELECT '\xzz'::bytea
SELECT 'a\\b'::bytea
SELECT 'a\101'::bytea
SELECT E'\\000'::bytea
SELECT '2026-01-05'::date
SELECT '20260105'::date
SELECT 'Jan 5, 2026'::date
SELECT '5 January 2026'::date
SELECT '2026-1-5'::date
SELECT '2026-02-30'::date
SELECT '2026-13-01'::date
SELECT 'nonsense'::date
SELECT '2026-01-05 23:59:59'::date
SELECT '2026-01-05T12:00:00Z'::date
SELECT TIMESTAMP '2026-01-05 23:59:59.999'::date
SELECT TIMESTAMPTZ '2026-01-05 23:59:59.999+00'::date
SELECT DATE '2026-01-05'::timestamp
SELECT DATE '2026-01-05'::timestamptz
SELECT TIMESTAMP '2026-01-05 12:00'::timestamptz
SELECT TIMESTAMPTZ '2026-01-05 12:00+05'::timestamp
SELECT '2026-01-05 12:00:00.1234567'::timestamp
SELECT '2026-01-05 12:00:00.9999999'::timestamp
SELECT '2026-01-05 12:00:00.5'::timestamp(0)
SELECT '2026-01-05 12:00:00.123456'::timestamp(3)
SELECT '2026-01-05 24:00:00'::timestamp
SELECT '2026-01-05 25:00:00'::timestamp
SELECT '2026-01-05 12:00:60'::timestamp
SELECT '2026-01-05'::timestamp
SELECT '2026-01-05 12:00 PM'::timestamp
SELECT '2026-01-05 1:00 PM'::timestamp
SELECT '2026-01-05 12:00:00 America/Los_Angeles'::timestamptz
SELECT '2026-01-05 12:00:00 PST'::timestamptz
SELECT '2026-01-05 12:00:00-08:30'::timestamptz
SELECT '12:34'::time
SELECT TIMESTAMP '2026-01-05 12:34:56.5'::time
SELECT 'infinity'::timestamp
SELECT 'infinity'::date
SELECT '-infinity'::timestamptz
SELECT 'epoch'::timestamp
SELECT '0001-01-01'::date
SELECT '9999-12-31'::date
SELECT '10000-01-01'::date
SELECT '0044-03-15 BC'::date
SELECT i::text, b::text, n::text, big::text, f::text FROM kinds ORDER BY id
SELECT d::text, ts::text, y::text, x::text FROM kinds ORDER BY id
SELECT i::float8, b::float8 FROM kinds ORDER BY id
SELECT n::float8 FROM kinds ORDER BY id
SELECT big::float8 FROM kinds WHERE abs(big) < 1e15 ORDER BY id
SELECT n::int FROM kinds WHERE abs(n) < 2000000000 ORDER BY id
SELECT n::bigint FROM kinds ORDER BY id
SELECT n::int FROM kinds ORDER BY id
SELECT f::int FROM kinds WHERE abs(f) < 1000000 ORDER BY id
SELECT f::numeric FROM kinds WHERE abs(f) < 1000000 ORDER BY id
SELECT f::numeric(10,3) FROM kinds WHERE abs(f) < 1000000 ORDER BY id
SELECT f::float4 FROM kinds WHERE abs(f) < 1000000 ORDER BY id
SELECT i::numeric FROM kinds ORDER BY id
SELECT b::numeric(30,2) FROM kinds ORDER BY id
SELECT b::int FROM kinds WHERE id <> 2 AND id <> 3 AND id <> 9 AND id <> 10 ORDER BY id
SELECT b::int FROM kinds ORDER BY id
SELECT i::smallint FROM kinds WHERE id > 3 ORDER BY id
SELECT ts::date FROM kinds ORDER BY id
SELECT ts::timestamp FROM kinds ORDER BY id
SELECT ts::time FROM kinds ORDER BY id
SELECT d::timestamp FROM kinds ORDER BY id
SELECT d::timestamptz FROM kinds ORDER BY id
SELECT y::int FROM kinds ORDER BY id
SELECT i::boolean FROM kinds ORDER BY id
SELECT * FROM kinds ORDER BY id
SELECT id, f FROM kinds ORDER BY f, id
SELECT id, t FROM kinds ORDER BY t, id
SELECT id, t FROM kinds ORDER BY t DESC, id
SELECT id, x FROM kinds ORDER BY x, id
SELECT id, y FROM kinds ORDER BY y, id
SELECT id FROM kinds WHERE f = 'NaN' ORDER BY id
SELECT id FROM kinds WHERE f > 1e100 ORDER BY id
SELECT id FROM kinds WHERE f = -0.0 ORDER BY id
SELECT id FROM kinds WHERE f = 0.1 ORDER BY id
SELECT id FROM kinds WHERE n = 0.1 ORDER BY id
SELECT id FROM kinds WHERE n = 1 ORDER BY id
SELECT id FROM kinds WHERE big = 0.1 ORDER BY id
SELECT id FROM kinds WHERE b = 9007199254740992 ORDER BY id
SELECT id FROM kinds WHERE b = 9007199254740993 ORDER BY id
SELECT id FROM kinds WHERE b = 9007199254740993.0 ORDER BY id
SELECT id FROM kinds WHERE b > 9007199254740992.5 ORDER BY id
SELECT id FROM kinds WHERE b = 42.0 ORDER BY id
SELECT id FROM kinds WHERE i = 2.5 ORDER BY id
SELECT id FROM kinds WHERE i > 2.5 ORDER BY id
SELECT id FROM kinds WHERE i = '7' ORDER BY id
SELECT id FROM kinds WHERE i = '7.0' ORDER BY id
SELECT id FROM kinds WHERE i = 'x' ORDER BY id
SELECT id FROM kinds WHERE t = 7 ORDER BY id
SELECT id FROM kinds WHERE d = '2026-03-08' ORDER BY id
SELECT id FROM kinds WHERE d > '2026-03' ORDER BY id
SELECT id FROM kinds WHERE d = 20260308 ORDER BY id
SELECT id FROM kinds WHERE ts = '2026-11-01 08:30:00' ORDER BY id
SELECT id FROM kinds WHERE ts >= '2026-11-01' ORDER BY id
SELECT id FROM kinds WHERE ts >= DATE '2026-11-01' ORDER BY id
SELECT id FROM kinds WHERE ts = '2026-11-01 01:30:00-07' ORDER BY id
SELECT id FROM kinds WHERE ts::date = d ORDER BY id
SELECT id FROM kinds WHERE y ORDER BY id
SELECT id FROM kinds WHERE NOT y ORDER BY id
SELECT id FROM kinds WHERE y = 't' ORDER BY id
SELECT id FROM kinds WHERE y = 1 ORDER BY id
SELECT id FROM kinds WHERE y IS NOT TRUE ORDER BY id
SELECT id FROM kinds WHERE x = '\x41' ORDER BY id
SELECT id FROM kinds WHERE x = 'A' ORDER BY id
SELECT id FROM kinds WHERE i ORDER BY id
SELECT id FROM kinds WHERE t ORDER BY id
SELECT id FROM kinds WHERE i IN (1, 2.5, 3) ORDER BY id
SELECT id FROM kinds WHERE i BETWEEN '3' AND '7' ORDER BY id
SELECT id FROM kinds WHERE f IN (0.1, 2.5) ORDER BY id
SELECT id FROM kinds WHERE n IN (0.1, 2.5) ORDER BY id
SELECT id FROM kinds WHERE n = 0.1::float8 ORDER BY id
SELECT id FROM kinds WHERE n = f ORDER BY id
SELECT id FROM kinds WHERE big = n ORDER BY id
SELECT id FROM kinds WHERE b = f ORDER BY id
SELECT pg_typeof(1)
SELECT pg_typeof(2147483648)
SELECT pg_typeof(9223372036854775808)
SELECT pg_typeof(1.5)
SELECT pg_typeof('a')
SELECT pg_typeof(1::smallint)
SELECT pg_typeof(1::real)
SELECT pg_typeof(1e3)
SELECT pg_typeof(true)
SELECT pg_typeof(NULL)
SELECT pg_typeof(i), pg_typeof(b), pg_typeof(n), pg_typeof(f), pg_typeof(t) FROM kinds LIMIT 1
SELECT pg_typeof(d), pg_typeof(ts), pg_typeof(y), pg_typeof(x) FROM kinds LIMIT 1
SELECT pg_typeof(i + 1), pg_typeof(b + 1), pg_typeof(n + 1), pg_typeof(f + 1), pg_typeof(i + b) FROM kinds LIMIT 1
SELECT pg_typeof(n + f), pg_typeof(i * 1.5), pg_typeof(i / 2), pg_typeof(b * n), pg_typeof(n / 3) FROM kinds LIMIT 1
SELECT pg_typeof(d - d), pg_typeof(d + 1), pg_typeof(ts - ts), pg_typeof(d + interval '1 day'), pg_typeof(ts + interval '1 day') FROM kinds LIMIT 1
SELECT pg_typeof(now())
SELECT pg_typeof(current_date)
SELECT pg_typeof(current_timestamp)
SELECT pg_typeof(localtimestamp)
SELECT pg_typeof(current_time)
SELECT pg_typeof(ARRAY[1,2])
SELECT pg_typeof(ARRAY['a'])
SELECT pg_typeof('{1}'::bigint[])
SELECT pg_typeof('hello'::varchar(3))
SELECT pg_typeof('hello'::char(3))
SELECT pg_typeof('a'::text)
SELECT 1 AS "Weird Name"
SELECT 2 AS lower
SELECT 3 AS "UPPER"
SELECT 'a'::name
SELECT 1::oid
SELECT '550e8400-e29b-41d4-a716-446655440000'::uuid
SELECT '{"a": 1}'::json
SELECT '{"a":  1, "b": [1,2]}'::jsonb
SELECT 10::bit(8)
SELECT 1::money
SELECT CAST(NULL AS numeric(10,2))
SELECT NULL::date
SELECT NULL::timestamptz
SELECT NULL::boolean
SELECT NULL::bytea
SELECT int '42'
SELECT bigint '42'
SELECT numeric '4.20'
SELECT float8 '4.2'
SELECT text 'x'
SELECT boolean 'yes'
SELECT int4 '42'
SELECT int8 '42'
SELECT int2 '42'
SELECT bool 't'
SELECT float4 '4.2'
SELECT '1 '::numeric
SELECT ' 1'::numeric
SELECT '1_000'::int
SELECT '0x1F'::int
SELECT CAST('2026-01-05 10:00' AS timestamp with time zone)
SELECT CAST('2026-01-05 10:00' AS timestamp without time zone)
SELECT CAST(1.999 AS decimal(3,1))
SELECT CAST(5 AS dec(4,2))
SELECT CAST(5 AS numeric(3))
SELECT CAST(0.000001 AS double precision)
SELECT CAST(1234567.0 AS real)
