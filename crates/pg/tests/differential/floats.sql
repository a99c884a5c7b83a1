-- Floats: arithmetic, special values, and how they are shown.
SELECT 0.1::float8 + 0.2::float8
SELECT 1e20::float8
SELECT 1e15::float8
SELECT 1e14::float8
SELECT 1e16::float8
SELECT 123456789012345678::float8
SELECT 1e-4::float8
SELECT 1e-5::float8
SELECT 0.00012345::float8
SELECT 1.5e-7::float8
SELECT 1e308::float8
SELECT 5e-324::float8
SELECT 2.2250738585072014e-308::float8
SELECT 1::float8
SELECT -1::float8
SELECT 0::float8
SELECT '-0'::float8
SELECT 100000::float8
SELECT 1000000::float8
SELECT 10000000::float8
SELECT 123456.789::float8
SELECT 0.1::float4
SELECT 1e10::float4
SELECT 16777216::float4
SELECT 1.17549435e-38::float4
SELECT 123456.7::float4
SELECT 1e6::float4
SELECT 1e7::float4
SELECT 1e5::float4
SELECT 0.0001::float4
SELECT 0.00001::float4
SELECT 0.1::float4 + 0.2::float4
SELECT 0.1::float4 + 0.2::float8
SELECT 0.1::float4 = 0.1::float8
SELECT 1::float8 / 3
SELECT 1::float8 / 0
SELECT 0::float8 / 0
SELECT 1::float8 / '0'::float8
SELECT 'Infinity'::float8 - 'Infinity'::float8
SELECT 'Infinity'::float8 + 1
SELECT -'Infinity'::float8
SELECT 'NaN'::float8 = 'NaN'::float8
SELECT 'NaN'::float8 > 'Infinity'::float8
SELECT 'NaN'::float8 < 1
SELECT 1e308::float8 * 10
SELECT 1e-308::float8 / 1e10
SELECT '-0'::float8 = 0
SELECT round(2.5::float8)
SELECT round(3.5::float8)
SELECT round(-2.5::float8)
SELECT round(0.5::float8)
SELECT round(2.567::float8, 2)
SELECT trunc(2.9::float8)
SELECT trunc(-2.9::float8)
SELECT ceil(2.1::float8)
SELECT floor(-2.1::float8)
SELECT ceil(-0.5::float8)
SELECT round(-0.4::float8)
SELECT sqrt(2::float8)
SELECT power(2::float8, 0.5)
SELECT exp(1::float8)
SELECT ln(2::float8)
SELECT log(1000::float8)
SELECT sin(1::float8)
SELECT cos(1::float8)
SELECT tan(1::float8)
SELECT atan2(1, 2)
SELECT pi()
SELECT degrees(pi())
SELECT radians(180)
SELECT sqrt(-1::float8)
SELECT ln(0::float8)
SELECT power(0::float8, -1)
SELECT exp(1000::float8)
SELECT acos(2)
SELECT 5.5::float8 % 2
SELECT mod(5.5::float8, 2)
SELECT 7::float8 / 2
SELECT 2::float8 * 3
SELECT f + 1 FROM kinds WHERE id > 3 ORDER BY id
SELECT f * 2 FROM kinds WHERE id > 3 ORDER BY id
SELECT f * 2 FROM kinds ORDER BY id
SELECT -f, abs(f) FROM kinds ORDER BY id
SELECT f / 0 FROM kinds WHERE id = 4
SELECT 1 / f FROM kinds WHERE id IN (4, 7, 8) ORDER BY id
SELECT 1 / f FROM kinds WHERE id = 1
SELECT sum(f) FROM kinds WHERE id IN (4, 7, 8)
SELECT sum(f) FROM kinds WHERE id > 3
SELECT min(f), max(f) FROM kinds
SELECT avg(f) FROM kinds WHERE id IN (4, 8)
SELECT count(DISTINCT f) FROM kinds
SELECT f, count(*) FROM kinds GROUP BY f ORDER BY f
SELECT DISTINCT f FROM kinds ORDER BY f DESC NULLS LAST
SELECT id FROM kinds WHERE f < 0 ORDER BY id
SELECT id FROM kinds WHERE f > 'Infinity' ORDER BY id
SELECT id FROM kinds WHERE f >= 0.30000000000000004 ORDER BY id
SELECT f::text FROM kinds ORDER BY id
SELECT f || '' FROM kinds ORDER BY id
SELECT weight, weight * 3 FROM sales ORDER BY id
SELECT weight + 0.1 FROM sales ORDER BY id
SELECT weight * qty FROM sales ORDER BY id
SELECT weight * price FROM sales ORDER BY id
SELECT round(weight::numeric, 2) FROM sales ORDER BY id
SELECT round(weight) FROM sales ORDER BY id
SELECT floor(weight), ceil(weight), trunc(weight) FROM sales ORDER BY id
SELECT weight, count(*) FROM sales GROUP BY weight ORDER BY weight
SELECT greatest(weight, 0.2), least(weight, 1) FROM sales ORDER BY id
SELECT 1.0::real * 3
SELECT 1.1::real * 1.1::real
SELECT 3.0e0
SELECT 3.0e0::float8
SELECT float8 '1.5'
SELECT real '2.5'
SELECT 0.1::float8::text
SELECT 0.30000000000000004::float8::text
SELECT (1::float8/3)::text
SELECT 4.35::float8 * 100
SELECT 1.1::float8 * 1.1::float8
SELECT id, f, rank() OVER (ORDER BY f) FROM kinds ORDER BY 3, id
SELECT array_agg(id ORDER BY f DESC NULLS LAST, id) FROM kinds
SELECT id FROM kinds ORDER BY f DESC NULLS LAST, id LIMIT 3
SELECT id, f::real FROM kinds WHERE abs(f) < 1e30 ORDER BY f::real DESC, id
SELECT id, sum(i) OVER (ORDER BY f RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM kinds WHERE f IN (0, 1, 2.5) ORDER BY id
SELECT percentile_cont(1) WITHIN GROUP (ORDER BY x), percentile_cont(0) WITHIN GROUP (ORDER BY x) FROM (VALUES (1::float8), ('Infinity')) t(x)
SELECT array_agg(DISTINCT f ORDER BY f) FROM kinds
SELECT id FROM kinds ORDER BY -f, id
SELECT id, f - f AS d FROM kinds ORDER BY f - f, id
SELECT count(DISTINCT f), count(DISTINCT f + 0), count(f) FROM kinds
SELECT sum(DISTINCT f) FROM kinds WHERE abs(f) < 10
SELECT count(*) FROM (SELECT DISTINCT f FROM kinds) x
SELECT count(*) FROM (SELECT f FROM kinds WHERE id = 1 UNION SELECT f FROM kinds WHERE id = 14) x
SELECT a.id, b.id FROM kinds a JOIN kinds b ON a.f = b.f WHERE a.id IN (1, 11) ORDER BY 1, 2
SELECT id FROM kinds WHERE f IN (0, 'NaN') ORDER BY id
