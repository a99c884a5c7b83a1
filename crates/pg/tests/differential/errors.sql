-- What is an error.
SELECT nothing FROM sales
SELECT * FROM nothing
SELECT sales.nothing FROM sales
SELECT x.id FROM sales
SELECT sku, count(*) FROM sales
SELECT sku, count(*) FROM sales GROUP BY qty
SELECT count(*) FROM sales WHERE count(*) > 1
SELECT id FROM sales HAVING count(*) > 1
SELECT sum(sum(qty)) FROM sales
SELECT sum(note) FROM sales
SELECT avg(note) FROM sales
SELECT avg(paid) FROM sales
SELECT sum(paid) FROM sales
SELECT sum(day) FROM sales
SELECT max(paid) FROM sales
SELECT min(x) FROM kinds
SELECT qty + note FROM sales
SELECT day + day FROM sales
SELECT sold_at + sold_at FROM sales
SELECT sold_at + 1 FROM sales
SELECT day - note FROM sales
SELECT qty = note FROM sales
SELECT qty = day FROM sales
SELECT day = qty FROM sales
SELECT paid = 1 FROM sales
SELECT paid + 1 FROM sales
SELECT -note FROM sales
SELECT NOT qty FROM sales
SELECT id FROM sales WHERE qty
SELECT id FROM sales WHERE note = 5
SELECT id FROM sales WHERE qty LIKE '1%'
SELECT id FROM sales WHERE sold_at LIKE '2026%'
SELECT id FROM sales WHERE day LIKE '2026%'
SELECT id FROM sales WHERE qty IN ('a')
SELECT id FROM sales WHERE day IN ('2026-01-31', 'x')
SELECT id FROM sales WHERE sold_at > 'yesterdayish'
SELECT (SELECT id FROM sales)
SELECT (SELECT id, qty FROM sales LIMIT 1)
SELECT id FROM sales WHERE qty = (SELECT qty FROM sales)
SELECT id FROM sales WHERE qty IN (SELECT qty, id FROM sales)
SELECT id FROM sales UNION SELECT note FROM sales
SELECT id, qty FROM sales UNION SELECT id FROM sales
SELECT 1 UNION SELECT 'a'
SELECT 1 UNION SELECT '2'
SELECT id FROM sales ORDER BY 2
SELECT id FROM sales ORDER BY 0
SELECT id FROM sales GROUP BY 2
SELECT id FROM sales LIMIT -1
SELECT id FROM sales OFFSET -1
SELECT id FROM sales LIMIT 'a'
SELECT id FROM sales, stores
SELECT s.id FROM sales s JOIN stores s ON true
SELECT * FROM sales JOIN stores USING (nothing)
SELECT * FROM (SELECT 1)
SELECT * FROM (SELECT 1) AS x(a, b)
SELECT * FROM (VALUES (1, 2), (3)) AS v
SELECT 'abc'::int
SELECT sku::int FROM sales
SELECT 1 / (qty - qty) FROM sales WHERE qty IS NOT NULL
SELECT 5 / 0 WHERE false
SELECT 1 / 0 FROM sales WHERE false
SELECT CASE WHEN false THEN 1 / 0 ELSE 1 END
SELECT length()
SELECT length('a', 'b')
SELECT row_number() FROM sales
SELECT id FROM sales WHERE row_number() OVER () = 1
SELECT rank() OVER (ORDER BY nothing) FROM sales
SELECT DISTINCT ON (qty) id FROM sales ORDER BY id
SELECT DISTINCT qty FROM sales ORDER BY id
SELECT id AS a, qty AS a FROM sales ORDER BY a
SELECT a FROM (SELECT id AS a, qty AS a FROM sales) x
SELECT id AS n FROM sales WHERE n > 1
SELECT qty + 1 AS q FROM sales GROUP BY q HAVING q > 1
SELECT count(DISTINCT *) FROM sales
SELECT count() FROM sales
SELECT sum(*) FROM sales
SELECT FROM
SELEC 1
SELECT 1 +
SELECT 'unterminated
SELECT (1
SELECT 1 FROM sales WHERE
SELECT $1
SELECT current_setting('no.such')
SHOW nosuchsetting
SELECT date '2026-02-29'
SELECT timestamp 'x'
SELECT interval 'x'
SELECT interval '1 fortnight'
SELECT make_date(2026, 2, 30)
SELECT extract(nothing FROM now())
SELECT date_trunc('nothing', now())
SELECT to_char(1)
SELECT now() AT TIME ZONE 'Mars/Phobos'
SELECT '2026-01-05 12:00 Mars/Phobos'::timestamptz
SELECT date_part('hour', DATE '2026-01-05')
SELECT extract(hour FROM DATE '2026-01-05')
SELECT interval '1 day' + 1
SELECT DATE '2026-01-01' * 2
SELECT '2026-01-01' - DATE '2025-01-01'
SELECT WITHIN
SELECT * FROM sales TABLESAMPLE BERNOULLI (50) WHERE false
SELECT count(*) FROM sales TABLESAMPLE BERNOULLI (100)
SELECT count(*) FROM sales TABLESAMPLE SYSTEM (100)
SELECT count(*) FROM sales TABLESAMPLE BERNOULLI (0)
SELECT id FROM sales FOR NOTHING
SELECT 1; SELECT 2
SELECT percentile_cont(2) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT ntile(0) OVER (ORDER BY id) FROM sales
SELECT lag(qty, 'x') OVER (ORDER BY id) FROM sales
SELECT sum(qty) OVER (ROWS BETWEEN UNBOUNDED FOLLOWING AND CURRENT ROW) FROM sales
SELECT sum(qty) OVER (ORDER BY sku RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM sales
SELECT _site FROM sales WHERE _site = 5
SELECT arrow_typeof(1)
SELECT arrow_cast(1, 'Int8')
SELECT to_timestamp_millis(1)
SELECT date_format(now(), '%Y')
SELECT nvl(NULL, 1)
SELECT ifnull(NULL, 1)
SELECT if(true, 1, 2)
SELECT approx_distinct(qty) FROM sales
SELECT median(qty) FROM sales
SELECT array_distinct(ARRAY[1, 1])
SELECT struct(1, 2)
SELECT make_array(1, 2)
SELECT named_struct('a', 1)
SELECT map([1], [2])
SELECT [1, 2]
SELECT {'a': 1}
SELECT * EXCLUDE (id) FROM sales
SELECT * EXCEPT (id) FROM sales
SELECT id FROM sales QUALIFY row_number() OVER (ORDER BY id) = 1
SELECT id FROM sales LEFT SEMI JOIN stores ON true
SELECT instr('abc', 'b')
SELECT substr_index('a.b', '.', 1)
SELECT 5 DIV 2
SELECT "text"
SELECT `id` FROM sales
SELECT TRY_CAST('a' AS int)
SELECT SAFE_CAST('a' AS int)
SELECT first_value(qty) FROM sales
SELECT isnan(1.5)
SELECT now(1)
SELECT today()
SELECT from_unixtime(0)
SELECT 1::uint8
SELECT 1::tinyint
SELECT 'a'::string
SELECT 1::double
SELECT 1::float64
SELECT '2026-01-01'::datetime
SELECT 'a'::blob
