-- Exact decimals: scales, division, rounding.
SELECT 1.10 + 2.205
SELECT 1.10 - 1.10
SELECT 1.5 * 1.5
SELECT 1.50 * 2
SELECT 100.00 * 0.07
[scale] SELECT 1.0 / 3
[scale] SELECT 10 / 3.0
[scale] SELECT 2.0 / 3
[scale] SELECT 1::numeric / 3
[scale] SELECT 100000.00 / 7
[scale] SELECT 1 / 7.0000
[scale] SELECT 0.0001 / 7
[scale] SELECT 1e10 / 3
[scale] SELECT 12345678901234567890 / 7.0
[scale] SELECT -1.0 / 3
SELECT 6.0 / 2
SELECT 1.0 / 0
SELECT 1.0 % 0
SELECT 5.5 % 2
SELECT -5.5 % 2
SELECT 5.5 % -2
SELECT mod(5.5, 2)
SELECT mod(-5.5, 2)
SELECT round(2.5)
SELECT round(3.5)
SELECT round(-2.5)
SELECT round(0.5)
SELECT round(-0.5)
SELECT round(2.345, 2)
SELECT round(2.355, 2)
SELECT round(-2.345, 2)
SELECT round(1.005, 2)
SELECT round(1234.567, -2)
SELECT round(1250.0, -2)
SELECT round(99.99, 1)
SELECT round(1.5, 3)
SELECT round(1, 2)
SELECT round(1.0, 0)
SELECT trunc(2.9)
SELECT trunc(-2.9)
SELECT trunc(2.999, 2)
SELECT trunc(-2.999, 2)
SELECT trunc(1234.5, -2)
SELECT ceil(2.1)
SELECT ceil(-2.1)
SELECT ceiling(2.0)
SELECT floor(2.9)
SELECT floor(-2.1)
SELECT abs(-1.50)
SELECT sign(-1.5)
SELECT -(1.50)
SELECT power(2.5, 2)
SELECT power(2.0, -1)
SELECT power(10.0, 20)
SELECT 2.5 ^ 2
SELECT sqrt(2.0)
SELECT exp(1.0)
SELECT ln(10.0)
SELECT log(100.0)
SELECT log(2.0, 64.0)
SELECT ln(0.0)
SELECT ln(-1.0)
SELECT log(0)
SELECT exp(1::float8)
SELECT ln(10::float8)
SELECT log(100::float8)
SELECT 99999999999999999999999999999999999999 + 1
SELECT 99999999999999999999.99 * 99999999999999999999.99
SELECT 12345678901234567890.123456789 * 98765432109876543210.987654321
SELECT 0.00000000000000000001 * 0.00000000000000000001
SELECT n + 1 FROM kinds ORDER BY id
SELECT n * n FROM kinds ORDER BY id
SELECT n * 3 FROM kinds ORDER BY id
SELECT n - 0.001 FROM kinds ORDER BY id
SELECT n * 1.075 FROM kinds ORDER BY id
SELECT big + 0.5 FROM kinds ORDER BY id
SELECT big * 2 FROM kinds ORDER BY id
SELECT big * big FROM kinds WHERE abs(big) < 100000 ORDER BY id
SELECT big * big FROM kinds ORDER BY id
SELECT big - n FROM kinds ORDER BY id
[scale] SELECT n / 3 FROM kinds ORDER BY id
[scale] SELECT n / 7.00 FROM kinds ORDER BY id
[scale] SELECT big / 3 FROM kinds ORDER BY id
[scale] SELECT big / n FROM kinds WHERE n <> 0 ORDER BY id
SELECT n / 0 FROM kinds ORDER BY id
SELECT n / n FROM kinds ORDER BY id
SELECT round(n, 1) FROM kinds ORDER BY id
SELECT round(n) FROM kinds ORDER BY id
SELECT trunc(n), ceil(n), floor(n) FROM kinds ORDER BY id
SELECT round(big, 3), trunc(big, 3) FROM kinds ORDER BY id
SELECT abs(n), sign(n), -n FROM kinds ORDER BY id
SELECT n % 2, n % 0.03 FROM kinds ORDER BY id
SELECT n + i, n + b FROM kinds ORDER BY id
SELECT n + f FROM kinds WHERE id < 11 ORDER BY id
SELECT n * f FROM kinds WHERE id >= 7 ORDER BY id
SELECT n = i FROM kinds ORDER BY id
SELECT n < big FROM kinds ORDER BY id
SELECT n::numeric(12,1) FROM kinds ORDER BY id
SELECT n::numeric(5,2) FROM kinds ORDER BY id
SELECT sum(n), min(n), max(n) FROM kinds
SELECT sum(big), min(big), max(big) FROM kinds
SELECT sum(b) FROM kinds
SELECT sum(b) FROM kinds WHERE id IN (2, 4)
SELECT sum(b) FROM kinds WHERE id IN (2, 9, 10)
SELECT sum(i), sum(i::bigint), sum(i::smallint) FROM kinds WHERE i BETWEEN -100 AND 100
[scale] SELECT avg(n) FROM kinds
[scale] SELECT avg(big) FROM kinds
[scale] SELECT avg(b) FROM kinds
[scale] SELECT avg(i) FROM kinds
[scale] SELECT avg(price) FROM sales
[scale] SELECT avg(qty) FROM sales
[scale] SELECT sum(price) / count(*) FROM sales
[scale] SELECT sum(price) / sum(qty) FROM sales
[scale] SELECT _site, avg(price) FROM sales GROUP BY _site ORDER BY _site
[scale] SELECT _site, sum(price * qty) / nullif(sum(qty), 0) FROM sales GROUP BY _site ORDER BY _site
SELECT sum(price), sum(price * qty), sum(price) * 1.1 FROM sales
SELECT sum(qty * price) FROM sales WHERE _site = 's01'
SELECT round(sum(price * 0.0825), 2) FROM sales
SELECT round(avg(price), 2) FROM sales
SELECT round(avg(qty), 2) FROM sales
SELECT round(price * 1.0825, 2) FROM sales ORDER BY id
SELECT round(price / 3, 2) FROM sales ORDER BY id
SELECT round(100.0 * sum(qty) / (SELECT sum(qty) FROM sales), 1) FROM sales WHERE _site = 's02'
SELECT round(100.0 * count(*) FILTER (WHERE paid) / count(*), 2) FROM sales
SELECT (sum(price) * 100)::bigint FROM sales
SELECT sum(price::float8) = sum(price)::float8 FROM sales WHERE id < 5
SELECT price * qty AS total FROM sales ORDER BY id
SELECT price - 0.1 * 3 FROM sales ORDER BY id
SELECT price = 2.5, price = 2.50, price = '2.5' FROM sales ORDER BY id
SELECT count(*) FROM sales WHERE price > 9.985
SELECT count(*) FROM sales WHERE price BETWEEN 1.1 AND 9.99
SELECT count(*) FROM sales WHERE price * qty > 100
SELECT price, count(*) FROM sales GROUP BY price ORDER BY price
SELECT DISTINCT price + 0.00 FROM sales ORDER BY 1
SELECT 1.10 = 1.1
SELECT 1.10 = 1.1::float8
SELECT 0.1 + 0.2 = 0.3
SELECT 0.1::float8 + 0.2::float8 = 0.3::float8
SELECT 1.0 UNION SELECT 1.00
SELECT scale(1.500)
SELECT min_scale(1.500)
SELECT trim_scale(1.500)
SELECT 1.5 + 1
SELECT 1.5 + 1::bigint
SELECT 1.5 + 1::float8
SELECT -0.0
SELECT 0.00 * -1
SELECT 1e-10 + 1
SELECT 1234567890.1234567890 - 0.0000000001
SELECT to_char(1234.5, 'FM999,999.00')
SELECT 'Infinity'::numeric
SELECT coalesce(price, 0) FROM sales ORDER BY id
SELECT coalesce(price, 0.0) * 2 FROM sales ORDER BY id
SELECT CASE WHEN qty > 2 THEN price ELSE 0 END FROM sales ORDER BY id
SELECT CASE WHEN qty > 2 THEN 1 ELSE 0.5 END FROM sales ORDER BY id
SELECT greatest(price, 5), least(price, 5.555) FROM sales ORDER BY id
SELECT nullif(price, 0) FROM sales ORDER BY id
