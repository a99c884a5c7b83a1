-- Joins, subqueries, set operations, CTEs, order and limits, names of columns.
SELECT s.id, st.name FROM sales s JOIN stores st ON st.id = s._site ORDER BY s.id
SELECT s.id, st.name FROM sales s LEFT JOIN stores st ON st.id = s._site ORDER BY s.id
SELECT st.id, s.id FROM stores st LEFT JOIN sales s ON s._site = st.id AND s.qty > 5 ORDER BY 1, 2
SELECT st.id, s.id FROM sales s RIGHT JOIN stores st ON s._site = st.id AND s.qty > 5 ORDER BY 1, 2
SELECT st.id, s.id FROM sales s FULL JOIN stores st ON s._site = st.id AND s.qty > 5 ORDER BY 1, 2
SELECT count(*) FROM sales CROSS JOIN stores
SELECT count(*) FROM sales, stores WHERE sales._site = stores.id
SELECT count(*) FROM sales s JOIN stores st ON s.qty = st.floor
SELECT count(*) FROM sales s JOIN stores st ON s.qty > st.floor
SELECT count(*) FROM sales s LEFT JOIN stores st ON s.qty IS NOT DISTINCT FROM st.floor
SELECT count(*) FROM sales a JOIN sales b ON a.sku = b.sku AND a.id < b.id
SELECT count(*) FROM sales a JOIN sales b USING (sku)
SELECT sku, a.id, b.id FROM sales a JOIN sales b USING (sku) WHERE a.id < b.id AND a.qty > 5 ORDER BY 2, 3
SELECT * FROM (SELECT id, name FROM stores) a JOIN (SELECT id, state FROM stores) b USING (id) ORDER BY id
SELECT * FROM (SELECT id, name FROM stores) a NATURAL JOIN (SELECT id, state FROM stores) b ORDER BY id
SELECT * FROM (SELECT id, name FROM stores) a JOIN (SELECT id, state FROM stores) b ON a.id = b.id ORDER BY a.id
SELECT a.*, b.state FROM stores a JOIN stores b ON a.id = b.id ORDER BY a.id
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, t) FULL JOIN (VALUES (2, 'x'), (3, 'y')) AS w(n, u) USING (n) ORDER BY n
SELECT * FROM (VALUES (1), (NULL)) AS v(n) JOIN (VALUES (1), (NULL)) AS w(m) ON n = m
SELECT * FROM (VALUES (1), (NULL)) AS v(n) JOIN (VALUES (1), (NULL)) AS w(m) ON n IS NOT DISTINCT FROM m ORDER BY n
SELECT s.id, (SELECT count(*) FROM sales x WHERE x._site = s.id) FROM stores s ORDER BY s.id
SELECT s.id, (SELECT count(*) FROM sales x WHERE x._site = s.id) AS n FROM stores s ORDER BY n, s.id
SELECT s.id, (SELECT sum(qty) FROM sales x WHERE x._site = s.id) FROM stores s ORDER BY s.id
SELECT s.id, (SELECT max(sku) FROM sales x WHERE x._site = s.id AND x.qty > 3) FROM stores s ORDER BY s.id
SELECT s.id, coalesce((SELECT sum(price) FROM sales x WHERE x._site = s.id), 0) FROM stores s ORDER BY s.id
SELECT (SELECT count(*) FROM sales), (SELECT max(name) FROM stores)
SELECT (SELECT name FROM stores WHERE id = 'none')
SELECT (SELECT count(*) FROM sales WHERE qty > 3) + 1
SELECT s.id, EXISTS (SELECT 1 FROM sales x WHERE x._site = s.id) FROM stores s ORDER BY s.id
SELECT s.id, NOT EXISTS (SELECT 1 FROM sales x WHERE x._site = s.id AND x.qty > 10) FROM stores s ORDER BY s.id
SELECT s.id, s.id IN (SELECT _site FROM sales WHERE qty > 10) FROM stores s ORDER BY s.id
SELECT id, qty IN (SELECT floor FROM stores) FROM sales ORDER BY id
SELECT id, qty NOT IN (SELECT floor FROM stores) FROM sales ORDER BY id
SELECT id, qty = ANY (SELECT floor FROM stores) FROM sales ORDER BY id
SELECT id, qty > ALL (SELECT floor FROM stores WHERE floor IS NOT NULL) FROM sales ORDER BY id
SELECT id, CASE WHEN EXISTS (SELECT 1 FROM stores st WHERE st.id = s._site) THEN 'known' ELSE 'unknown' END FROM sales s ORDER BY id
SELECT id FROM stores s WHERE EXISTS (SELECT 1 FROM sales x WHERE x._site = s.id) ORDER BY id
SELECT id FROM stores s WHERE NOT EXISTS (SELECT 1 FROM sales x WHERE x._site = s.id) ORDER BY id
SELECT id FROM sales WHERE _site IN (SELECT id FROM stores WHERE state = 'WA') ORDER BY id
SELECT id FROM sales s WHERE qty > (SELECT avg(qty) FROM sales x WHERE x._site = s._site) ORDER BY id
SELECT id FROM sales s WHERE price = (SELECT max(price) FROM sales x WHERE x._site = s._site) ORDER BY id
SELECT id FROM sales s WHERE (SELECT count(*) FROM sales x WHERE x.sku = s.sku) > 6 ORDER BY id
SELECT id FROM sales s WHERE (SELECT count(*) FROM sales x WHERE x.sku = s.sku AND x.qty > s.qty) = 0 ORDER BY id
SELECT id FROM sales WHERE qty = (SELECT max(qty) FROM sales) ORDER BY id
SELECT id FROM sales WHERE (SELECT NULL::boolean) ORDER BY id
SELECT st.id, x.id FROM stores st, LATERAL (SELECT id FROM sales s WHERE s._site = st.id ORDER BY id LIMIT 2) x ORDER BY 1, 2
SELECT st.id, x.id FROM stores st LEFT JOIN LATERAL (SELECT id FROM sales s WHERE s._site = st.id ORDER BY qty DESC NULLS LAST, id LIMIT 1) x ON true ORDER BY 1
SELECT st.id, x.n FROM stores st CROSS JOIN LATERAL (SELECT count(*) AS n FROM sales s WHERE s._site = st.id) x ORDER BY 1
SELECT st.id, g FROM stores st, generate_series(1, st.floor) g ORDER BY 1, 2
SELECT v.n, w.m FROM (VALUES (1), (2)) v(n), LATERAL (VALUES (v.n * 10), (v.n * 20)) w(m) ORDER BY 1, 2
SELECT 1 UNION SELECT 1
SELECT 1 UNION ALL SELECT 1
SELECT 1 UNION SELECT NULL UNION SELECT NULL ORDER BY 1
SELECT 1 INTERSECT SELECT 1
SELECT NULL INTERSECT SELECT NULL
SELECT 1 EXCEPT SELECT 1
SELECT NULL::int EXCEPT SELECT NULL::int
SELECT qty FROM sales INTERSECT SELECT floor FROM stores ORDER BY 1
SELECT qty FROM sales EXCEPT SELECT floor FROM stores ORDER BY 1
SELECT qty FROM sales INTERSECT ALL SELECT floor::bigint FROM stores ORDER BY 1
SELECT qty FROM sales EXCEPT ALL SELECT floor::bigint FROM stores ORDER BY 1
SELECT n FROM (VALUES (1), (1), (2), (NULL), (NULL)) v(n) EXCEPT ALL SELECT n FROM (VALUES (1), (NULL)) w(n) ORDER BY 1
SELECT n FROM (VALUES (1), (1), (2), (NULL), (NULL)) v(n) INTERSECT ALL SELECT n FROM (VALUES (1), (1), (1), (NULL)) w(n) ORDER BY 1
SELECT 1 AS a UNION SELECT 2 AS b ORDER BY a
SELECT 1 UNION SELECT 2.5 ORDER BY 1
SELECT 1 UNION SELECT 2.5::float8 ORDER BY 1
SELECT 'a' UNION SELECT 'b' ORDER BY 1 DESC
SELECT NULL UNION SELECT 1 ORDER BY 1
SELECT DATE '2026-01-01' UNION SELECT TIMESTAMP '2026-01-01 12:00' ORDER BY 1
SELECT 1 UNION SELECT 2 INTERSECT SELECT 2 ORDER BY 1
(SELECT 1 UNION SELECT 2) INTERSECT SELECT 2
(SELECT id FROM sales ORDER BY id LIMIT 2) UNION ALL (SELECT id FROM sales ORDER BY id DESC LIMIT 2) ORDER BY 1
SELECT id FROM sales WHERE qty > 10 UNION ALL SELECT id FROM sales WHERE price > 1000 ORDER BY 1 LIMIT 3
SELECT x._site FROM (VALUES ('a1')) v(sku) LEFT JOIN sales x ON x.sku = v.sku AND x.qty > 1000 INTERSECT (SELECT id FROM stores WHERE state = 'WA' UNION ALL SELECT NULL)
WITH w AS (SELECT _site, sum(qty) AS q FROM sales GROUP BY _site) SELECT * FROM w ORDER BY 1
WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS y FROM a) SELECT * FROM a, b
WITH w(a, b) AS (VALUES (1, 2), (3, 4)) SELECT a + b FROM w ORDER BY 1
WITH w AS MATERIALIZED (SELECT 1 AS x) SELECT * FROM w
WITH w AS NOT MATERIALIZED (SELECT 1 AS x) SELECT * FROM w w1, w w2
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t ORDER BY n
WITH RECURSIVE t(n) AS (SELECT 1 UNION SELECT n % 3 + 1 FROM t) SELECT * FROM t ORDER BY n
WITH RECURSIVE t(n, f) AS (SELECT 1, 1::numeric UNION ALL SELECT n + 1, f * (n + 1) FROM t WHERE n < 20) SELECT * FROM t ORDER BY n
WITH RECURSIVE t(d) AS (SELECT DATE '2026-01-01' UNION ALL SELECT d + 1 FROM t WHERE d < DATE '2026-01-05') SELECT * FROM t ORDER BY d
WITH RECURSIVE t(_site, n) AS (SELECT _site, 1 FROM sales WHERE id < 4 UNION ALL SELECT s._site, t.n + 1 FROM t JOIN sales s ON s._site = t._site AND s.id = t.n + 4 WHERE n < 5) SELECT * FROM t ORDER BY 1, 2
WITH sales AS (SELECT 1 AS id) SELECT * FROM sales
SELECT * FROM (WITH w AS (SELECT 1 AS x) SELECT * FROM w) y
SELECT id FROM sales ORDER BY qty, id
SELECT id FROM sales ORDER BY qty DESC, id
SELECT id FROM sales ORDER BY qty NULLS FIRST, id
SELECT id FROM sales ORDER BY qty DESC NULLS LAST, id
SELECT id, qty AS q FROM sales ORDER BY q, id
SELECT id, qty FROM sales ORDER BY 2, 1
SELECT id FROM sales ORDER BY -qty, id
SELECT id FROM sales ORDER BY lower(sku), id
SELECT id FROM sales ORDER BY paid, price, id
SELECT id FROM sales ORDER BY note, id
SELECT id FROM sales ORDER BY day DESC, sold_at, id
SELECT id FROM sales ORDER BY weight, id
SELECT id FROM sales ORDER BY CASE WHEN sku = 'b1' THEN 0 ELSE 1 END, id
SELECT id FROM sales ORDER BY id LIMIT 3
SELECT id FROM sales ORDER BY id OFFSET 45
SELECT id FROM sales ORDER BY id LIMIT 3 OFFSET 2
SELECT id FROM sales ORDER BY id OFFSET 2 LIMIT 3
SELECT id FROM sales ORDER BY id LIMIT 0
SELECT id FROM sales ORDER BY id LIMIT NULL OFFSET 46
SELECT id FROM sales ORDER BY id LIMIT ALL OFFSET 46
SELECT id FROM sales ORDER BY id LIMIT 1 + 1
SELECT id FROM sales ORDER BY id LIMIT (SELECT 2)
SELECT id FROM sales ORDER BY id LIMIT 2.5
SELECT id FROM sales ORDER BY id LIMIT '2'
SELECT id FROM sales ORDER BY id FETCH FIRST 3 ROWS ONLY
SELECT id FROM sales ORDER BY id FETCH FIRST ROW ONLY
SELECT id FROM sales ORDER BY id OFFSET 2 ROWS FETCH NEXT 2 ROWS ONLY
SELECT qty FROM sales ORDER BY qty DESC NULLS LAST FETCH FIRST 2 ROWS WITH TIES
SELECT id FROM (SELECT id FROM sales ORDER BY id DESC LIMIT 3) x ORDER BY id
VALUES (1, 'a'), (2, 'b')
VALUES (1), (2.5), (NULL)
VALUES (1, NULL), (NULL, 'x')
SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v ORDER BY 1
SELECT column1, column2 FROM (VALUES (1, 'a')) AS v
SELECT * FROM (VALUES (1), ('a')) AS v
SELECT id, id FROM sales ORDER BY 1 LIMIT 2
SELECT id AS a, qty AS a FROM sales ORDER BY 1 LIMIT 2
SELECT s.id, st.id FROM sales s JOIN stores st ON st.id = s._site ORDER BY 1 LIMIT 2
SELECT count(*), count(*) FROM sales
SELECT 1, 'a', 1.5, NULL, true
SELECT 1 + 1, -qty, qty + 1 FROM sales WHERE id = 1
SELECT upper(sku), length(sku), coalesce(qty, 0), nullif(qty, 0), greatest(qty, 1) FROM sales WHERE id = 1
SELECT sum(qty), avg(qty), count(qty), min(sku), max(sku) FROM sales WHERE id = 1
SELECT qty::text, CAST(qty AS numeric), price::int FROM sales WHERE id = 1
SELECT '5'::int, DATE '2026-01-01', true::text, 1::bigint, 'a'::varchar(3), 1.5::float8
SELECT CASE WHEN true THEN 1 END, CASE WHEN qty > 1 THEN sku END FROM sales WHERE id = 1
SELECT CASE WHEN true THEN 1 ELSE qty END FROM sales WHERE id = 1
SELECT (SELECT qty FROM sales WHERE id = 1), EXISTS (SELECT 1), ARRAY[1], ARRAY(SELECT 1), ROW(1, 2)
SELECT (qty), (qty + 1), sales.qty, s.* FROM sales JOIN (SELECT 1 AS one) s ON true WHERE id = 1
SELECT qty IS NULL, qty IN (1), qty BETWEEN 1 AND 2, NOT paid, sku LIKE 'a%', qty = 1 FROM sales WHERE id = 1
SELECT row_number() OVER (), sum(qty) OVER (), lag(qty) OVER (ORDER BY id) FROM sales WHERE id = 1
SELECT extract(year FROM day), date_part('year', day), date_trunc('month', sold_at), day + 1, sold_at AT TIME ZONE 'UTC' FROM sales WHERE id = 1
SELECT current_date IS NOT NULL AS x, trim(' a '), substring('abc' FROM 1 FOR 1), position('a' IN 'abc'), overlay('abc' PLACING 'x' FROM 1)
SELECT now() IS NULL, concat('a', 'b'), 'a' || 'b', round(1.5), abs(-1), substr('abc', 1)
SELECT (ARRAY[1, 2])[1], generate_series(1, 1), unnest(ARRAY[1])
SELECT x.a FROM (SELECT 1 AS a) x
SELECT x FROM (SELECT 1 AS a, 2 AS b) x
SELECT sales FROM (SELECT 1 AS sales) sales
SELECT "id" FROM sales WHERE id = 1
SELECT ID, Sku FROM SALES WHERE Id = 1
SELECT "ID" FROM sales
SELECT s.* FROM stores s ORDER BY id
SELECT * FROM stores ORDER BY id
SELECT stores.* FROM stores ORDER BY id
SELECT id FROM public.sales WHERE id = 1
SELECT public.sales.id FROM public.sales WHERE id = 1
SELECT id FROM hq.public.sales WHERE id = 1
SELECT ALL id FROM sales WHERE id = 1
TABLE stores
SELECT FROM sales LIMIT 2
SELECT 1 FROM sales WHERE id = 1 FOR UPDATE
SELECT id x FROM sales s WHERE s.id = 1
SELECT id "X y" FROM sales WHERE id = 1
SELECT/* comment */1 -- trailing
SELECT 1;
SELECT count(*) FROM sales a JOIN sales b ON a.id = b.id JOIN stores c ON c.id = b._site LEFT JOIN stores d ON d.id = c.id WHERE d.state IS NOT NULL
SELECT count(*) FROM (SELECT DISTINCT a._site FROM sales a LEFT JOIN stores b ON a._site = b.id WHERE b.id IS NULL) x
SELECT a.id FROM sales a LEFT JOIN stores b ON a._site = b.id AND b.state = 'WA' WHERE b.id IS NULL ORDER BY 1
SELECT a.id, b.id FROM stores a LEFT JOIN stores b ON a.floor = b.floor + 1 ORDER BY 1, 2
SELECT * FROM stores a JOIN stores b ON a.floor < b.floor ORDER BY a.id, b.id
SELECT sum(x) FROM (SELECT qty AS x FROM sales UNION ALL SELECT floor FROM stores) u
SELECT count(*) FROM sales WHERE (_site, sku) IN (SELECT id, 'a1' FROM stores)
SELECT (SELECT count(*) FROM sales WHERE _site = st.id AND qty > (SELECT avg(floor) FROM stores)) FROM stores st ORDER BY st.id
SELECT st.id, x.id, x.n FROM stores st, LATERAL (SELECT id, row_number() OVER (ORDER BY id) AS n FROM sales s WHERE s._site = st.id) x WHERE x.n <= 2 ORDER BY 1, 3
SELECT st.id, (SELECT sku FROM sales s WHERE s._site = st.id ORDER BY id DESC LIMIT 1) FROM stores st ORDER BY 1
SELECT st.id, (SELECT id FROM sales s WHERE s._site = st.id ORDER BY id LIMIT 1 OFFSET 1) FROM stores st ORDER BY 1
SELECT st.id, (SELECT sum(n) FROM (SELECT count(*) AS n FROM sales s WHERE s._site = st.id) q) FROM stores st ORDER BY 1
SELECT st.id, x.qty, x.n FROM stores st, LATERAL (SELECT qty, count(*) AS n FROM sales s WHERE s._site = st.id GROUP BY qty HAVING count(*) > st.floor) x ORDER BY 1, 2
SELECT st.id FROM stores st WHERE 2 IN (SELECT row_number() OVER (ORDER BY id) FROM sales s WHERE s._site = st.id) ORDER BY 1
SELECT st.id FROM stores st WHERE EXISTS (SELECT count(*) FROM sales s WHERE s._site = st.id AND s.qty > 1000) ORDER BY 1
SELECT st.id FROM stores st WHERE EXISTS (SELECT 1 FROM sales s WHERE s._site = st.id OFFSET 8) ORDER BY 1
SELECT st.id FROM stores st WHERE st.floor NOT IN (SELECT qty FROM sales s WHERE s._site = st.id) ORDER BY 1
SELECT st.id FROM stores st WHERE st.floor NOT IN (SELECT qty FROM sales) OR st.id = 's03' ORDER BY 1
SELECT st.id FROM stores st WHERE NOT (st.floor IN (SELECT qty FROM sales) AND st.id < 's09') ORDER BY 1
SELECT st.id FROM stores st WHERE (st.floor IN (SELECT qty FROM sales)) IS NULL ORDER BY 1
SELECT s.id, (SELECT max(x.id) FROM sales x WHERE x.sku = s.sku AND x.id < s.id) FROM sales s ORDER BY 1
SELECT st.id, x.id, y.id FROM stores st, LATERAL (SELECT id, sku FROM sales s WHERE s._site = st.id ORDER BY id LIMIT 2) x, LATERAL (SELECT id FROM sales s WHERE s.sku = x.sku ORDER BY id LIMIT 1) y ORDER BY 1, 2
SELECT st.id, x.a FROM stores st, LATERAL (SELECT id AS a FROM sales s WHERE s._site = st.id AND id < 9 UNION ALL SELECT st.floor) x ORDER BY 1, 2
SELECT st.id, (SELECT string_agg(sku, ',' ORDER BY id) FROM sales s WHERE s._site = st.id AND s.qty > st.floor) FROM stores st ORDER BY 1
SELECT k.id, (SELECT count(*) FROM kinds x WHERE x.f = k.f) FROM kinds k ORDER BY 1
SELECT k.id, x.n FROM kinds k, LATERAL (SELECT count(*) AS n FROM kinds x WHERE x.f <= k.f) x ORDER BY 1
SELECT x.id, y.id FROM (SELECT id, sku FROM sales ORDER BY id LIMIT 3) x, LATERAL (SELECT id FROM sales s WHERE s.sku = x.sku ORDER BY id LIMIT 1) y ORDER BY 1, 2
SELECT s.id FROM sales s WHERE s.qty = (SELECT max(x.qty) FROM sales x WHERE x.qty > s.id * 100) ORDER BY 1
SELECT st.id, x.q FROM stores st, LATERAL (SELECT max(s.qty) AS q FROM sales s WHERE s.qty > st.floor * 100) x WHERE x.q = st.floor ORDER BY 1
SELECT st.id, x.sku, x.c FROM stores st, LATERAL (SELECT DISTINCT ON (r.sku) r.sku, r.c FROM (SELECT sku, count(*) AS c FROM sales s WHERE s.qty > st.floor GROUP BY sku) r ORDER BY r.sku, r.c) x ORDER BY 1, 2
SELECT st.id, x.sku FROM stores st, LATERAL (SELECT DISTINCT sku FROM sales s WHERE s.qty > st.floor) x ORDER BY 1, 2
SELECT count(*) FROM (SELECT DISTINCT k, y FROM (SELECT d.sku AS k, t._site AS y, count(*) AS c FROM (SELECT DISTINCT sku FROM sales) d JOIN sales t ON t.sku = d.sku GROUP BY d.sku, t._site) a) b
SELECT k, sum(c) FROM (SELECT d.sku AS k, t._site AS y, count(*) AS c FROM (SELECT DISTINCT sku FROM sales) d JOIN sales t ON t.sku = d.sku GROUP BY d.sku, t._site) a GROUP BY k, y ORDER BY 1, 2
SELECT DISTINCT ON (k) k, y FROM (SELECT d.sku AS k, t._site AS y, count(*) AS c FROM (SELECT DISTINCT sku FROM sales) d JOIN sales t ON t.sku = d.sku GROUP BY d.sku, t._site) a ORDER BY k, y DESC
SELECT count(*) FROM sales s JOIN kinds k ON s.qty IS NOT DISTINCT FROM k.i WHERE coalesce(s.id, NULL) = k.id
SELECT count(*) FROM sales s JOIN stores st ON s.note IS NOT DISTINCT FROM st.state
SELECT count(*) FROM sales s JOIN kinds k ON s.weight IS NOT DISTINCT FROM k.f
SELECT count(*) FROM sales WHERE id NOT IN (SELECT f FROM kinds WHERE f IS NOT NULL) OR id = 3
SELECT k.id FROM kinds k WHERE k.f NOT IN (SELECT s.id FROM sales s WHERE s.qty > k.id) ORDER BY 1
SELECT count(*) FROM sales WHERE (qty IN (SELECT floor FROM stores)) IS TRUE
SELECT count(*) FROM sales WHERE (qty IN (SELECT floor FROM stores)) = true
SELECT st.id, x._site FROM stores st, LATERAL (SELECT s._site, st2.floor FROM sales s JOIN (SELECT id AS _site, floor FROM stores) st2 USING (_site) WHERE s.qty > st.floor) x ORDER BY 1, 2
SELECT st.id, x.n FROM stores st, LATERAL (SELECT count(*) AS n FROM sales s WHERE s._site = st.id) x WHERE st.state = 'WA' AND x.n > 1 ORDER BY 1
SELECT st.id FROM stores st WHERE st.floor > 1 AND (SELECT count(*) FROM sales s WHERE s.qty > st.floor) > 2 ORDER BY 1
SELECT r3.a, r2.b, r2.a FROM (SELECT qty AS a, sku AS b FROM sales WHERE qty = 2) r3 RIGHT JOIN (SELECT qty AS a, sku AS b FROM sales WHERE _site = 's02' AND id <> 2) r2 ON r3.b = r2.b AND r2.a < r3.a ORDER BY 1, 2, 3
SELECT st.id, x.qty, sum(x.qty) OVER (ORDER BY x.qty, st.id) FROM stores st LEFT JOIN (SELECT _site, qty, id FROM sales WHERE qty = 2) x ON x._site = st.id ORDER BY x.qty, st.id
SELECT st.id, x.qty FROM stores st LEFT JOIN (SELECT _site, qty FROM sales WHERE qty = 2) x ON x._site = st.id ORDER BY x.qty NULLS FIRST, st.id DESC LIMIT 2
SELECT x.qty, count(*) FROM stores st LEFT JOIN (SELECT _site, qty FROM sales WHERE qty = 2) x ON x._site = st.id GROUP BY x.qty ORDER BY 1
SELECT x.qty, y.qty, rank() OVER (ORDER BY x.qty, y.qty) FROM (SELECT sku, qty FROM sales WHERE qty = 2) x FULL JOIN (SELECT sku, qty FROM sales WHERE qty = 1) y ON x.sku = y.sku ORDER BY 1, 2
SELECT k, sum(c) FROM (SELECT d.sku AS k, t._site AS y, count(*) AS c FROM (SELECT sku, count(*) AS n FROM sales GROUP BY sku) d JOIN sales t ON t.sku = d.sku GROUP BY d.sku, t._site) a GROUP BY k ORDER BY 1, 2
SELECT count(*) FROM (SELECT DISTINCT k, y FROM (SELECT d.sku AS k, t._site AS y, count(*) AS c FROM (SELECT sku, count(*) AS n FROM sales GROUP BY sku) d JOIN sales t ON t.sku = d.sku GROUP BY d.sku, t._site) a) b
WITH a AS (SELECT sku AS k, _site AS y, count(*) AS c FROM sales GROUP BY sku, _site) SELECT k, max(c) FROM a GROUP BY k ORDER BY 1
SELECT d._site, d.n FROM (SELECT _site, count(*) AS n FROM sales GROUP BY _site) d WHERE d._site = 's01'
