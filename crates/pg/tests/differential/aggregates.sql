-- Aggregates, grouping, windows.
SELECT count(*) FROM sales
SELECT count(qty), count(DISTINCT qty), count(DISTINCT note), count(DISTINCT _site) FROM sales
SELECT count(*), count(*) FILTER (WHERE qty > 3), sum(qty) FILTER (WHERE paid), count(*) FILTER (WHERE NULL) FROM sales
SELECT count(*), sum(qty), avg(qty), min(qty), max(qty), min(note), bool_and(paid), array_agg(id), string_agg(sku, ',') FROM sales WHERE false
SELECT count(*) FROM sales WHERE false GROUP BY _site
SELECT sum(qty) FROM sales WHERE false HAVING count(*) = 0
SELECT sum(qty) FROM sales HAVING sum(qty) < 0
SELECT pg_typeof(count(*)), pg_typeof(sum(qty)), pg_typeof(avg(qty)), pg_typeof(sum(price)), pg_typeof(avg(price)), pg_typeof(sum(weight)), pg_typeof(avg(weight)) FROM sales
SELECT pg_typeof(sum(i)), pg_typeof(avg(i)), pg_typeof(sum(i::smallint)), pg_typeof(max(i)), pg_typeof(sum(f::real)), pg_typeof(avg(f::real)) FROM kinds WHERE id = 4
SELECT sum(DISTINCT qty), count(DISTINCT qty), string_agg(DISTINCT _site, ',' ORDER BY _site) FROM sales
[scale] SELECT avg(DISTINCT qty) FROM sales
SELECT _site, count(*) FROM sales GROUP BY _site ORDER BY _site
SELECT _site, sku, sum(qty) FROM sales GROUP BY _site, sku ORDER BY _site, sku
SELECT sku, sum(qty) AS total FROM sales GROUP BY sku ORDER BY total DESC, sku
SELECT sku, sum(qty) AS total FROM sales GROUP BY sku ORDER BY total NULLS FIRST, sku
SELECT sku, sum(qty) FROM sales GROUP BY sku HAVING sum(qty) > 10 ORDER BY sku
SELECT sku AS s, count(*) FROM sales GROUP BY s ORDER BY s
SELECT sku, count(*) FROM sales GROUP BY 1 ORDER BY 2 DESC, 1
SELECT qty, count(*) FROM sales GROUP BY qty ORDER BY qty
SELECT qty > 3 AS big, count(*) FROM sales GROUP BY big ORDER BY big
SELECT upper(_site), count(*) FROM sales GROUP BY upper(_site) ORDER BY 1
SELECT day, count(*) FROM sales GROUP BY day ORDER BY day DESC
SELECT weight, sum(qty) FROM sales GROUP BY weight ORDER BY weight
SELECT count(*) FROM (SELECT DISTINCT sku, qty FROM sales) x
SELECT count(DISTINCT (sku, qty)) FROM sales
SELECT count(DISTINCT sku || '-' || qty) FROM sales
SELECT max(sku), min(sku), max(day), min(sold_at), max(price) FROM sales
SELECT _site, max(sold_at), min(day) FROM sales GROUP BY _site ORDER BY _site
SELECT max(t), min(t) FROM kinds
SELECT min(n), max(n), min(d), max(d), min(ts), max(ts) FROM kinds
SELECT _site, sku, sum(qty) FROM sales GROUP BY ROLLUP (_site, sku) ORDER BY _site NULLS LAST, sku NULLS LAST
SELECT _site, paid, count(*) FROM sales GROUP BY CUBE (_site, paid) ORDER BY _site, paid, 3
SELECT _site, sku, count(*) FROM sales GROUP BY GROUPING SETS ((_site), (sku), ()) ORDER BY _site, sku
SELECT _site, grouping(_site), count(*) FROM sales GROUP BY ROLLUP (_site) ORDER BY 2, 1
SELECT _site, sku, grouping(_site, sku), count(*) FROM sales GROUP BY CUBE (_site, sku) ORDER BY 3, 1, 2
SELECT count(*) FROM sales GROUP BY ()
[float] SELECT stddev(qty), stddev_pop(qty), stddev_samp(qty), variance(qty), var_pop(qty), var_samp(qty) FROM sales
[float] SELECT stddev(price), variance(price) FROM sales
[float] SELECT stddev(weight), variance(weight) FROM sales WHERE id < 20
SELECT stddev(qty) FROM sales WHERE id = 1
SELECT stddev_pop(1), stddev(1), var_pop(1)
[float] SELECT corr(qty, price::float8), covar_pop(qty, price::float8), regr_slope(qty, price::float8) FROM sales
[float] SELECT regr_count(qty, id), regr_avgx(qty, id) FROM sales
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT percentile_cont(0.25) WITHIN GROUP (ORDER BY price) FROM sales
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY sku) FROM sales
SELECT percentile_cont(ARRAY[0.25, 0.5]) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT _site, percentile_cont(0.9) WITHIN GROUP (ORDER BY qty) FROM sales GROUP BY _site ORDER BY _site
SELECT mode() WITHIN GROUP (ORDER BY sku) FROM sales
SELECT mode() WITHIN GROUP (ORDER BY _site) FROM sales WHERE _site IN ('s01')
SELECT rank(3) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY sold_at - TIMESTAMPTZ '2026-01-01 00:00+00') FROM sales
SELECT bit_and(qty), bit_or(qty), bit_xor(qty) FROM sales WHERE qty > 0
SELECT array_agg(qty ORDER BY qty DESC NULLS LAST, id) FROM sales WHERE _site = 's01'
SELECT sum(CASE WHEN paid THEN qty ELSE 0 END), sum(CASE WHEN paid THEN 1 END) FROM sales
SELECT sum(qty) * 2 + count(*), sum(qty * 2), sum(qty + 1) FROM sales
SELECT sum(1), sum(1.5), sum(1::float8), avg(1), avg(1.5) FROM sales
SELECT sum(NULL::int), avg(NULL::numeric), max(NULL::text)
SELECT sum(qty), (SELECT count(*) FROM stores) FROM sales
SELECT count(*) AS c, count(*) + 1 AS d FROM sales ORDER BY c
SELECT max(qty) - min(qty) AS range FROM sales
SELECT DISTINCT _site, paid FROM sales ORDER BY 1, 2
SELECT DISTINCT ON (_site) _site, id, qty FROM sales ORDER BY _site, id DESC
SELECT DISTINCT ON (_site, sku) _site, sku, id FROM sales ORDER BY _site, sku, qty DESC NULLS LAST, id
SELECT id, row_number() OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, row_number() OVER (PARTITION BY _site ORDER BY qty, id) FROM sales ORDER BY id
SELECT id, rank() OVER (ORDER BY qty), dense_rank() OVER (ORDER BY qty) FROM sales ORDER BY id
SELECT id, rank() OVER (ORDER BY qty DESC) FROM sales ORDER BY id
SELECT id, rank() OVER (ORDER BY qty DESC NULLS LAST) FROM sales ORDER BY id
SELECT id, percent_rank() OVER (ORDER BY qty), cume_dist() OVER (ORDER BY qty) FROM sales ORDER BY id
SELECT id, ntile(4) OVER (ORDER BY id), ntile(5) OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, lag(qty) OVER (ORDER BY id), lead(qty) OVER (ORDER BY id), lag(qty, 2) OVER (ORDER BY id), lag(qty, 1, -1) OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, lag(sku, 1, 'none') OVER (PARTITION BY _site ORDER BY id), lead(day, 2) OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, first_value(sku) OVER (PARTITION BY _site ORDER BY id), last_value(sku) OVER (PARTITION BY _site ORDER BY id), nth_value(sku, 2) OVER (PARTITION BY _site ORDER BY id) FROM sales ORDER BY id
SELECT id, last_value(sku) OVER (PARTITION BY _site ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id), sum(qty) OVER (), sum(qty) OVER (PARTITION BY _site) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY qty) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id ROWS 2 PRECEDING) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id RANGE BETWEEN 2 PRECEDING AND 2 FOLLOWING) FROM sales ORDER BY id
SELECT id, count(*) OVER (ORDER BY qty GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM sales ORDER BY id
SELECT id, sum(qty) OVER (ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM sales ORDER BY id
SELECT id, count(*) OVER (ORDER BY day RANGE BETWEEN interval '1 month' PRECEDING AND CURRENT ROW) FROM sales ORDER BY id
SELECT id, count(*) OVER (ORDER BY sold_at RANGE BETWEEN interval '1 hour' PRECEDING AND CURRENT ROW) FROM sales ORDER BY id
SELECT id, max(price) OVER w, min(price) OVER w FROM sales WINDOW w AS (PARTITION BY sku ORDER BY id) ORDER BY id
SELECT id, count(*) OVER w FROM sales WINDOW w AS (PARTITION BY sku) ORDER BY id
SELECT id, sum(price) OVER (PARTITION BY _site ORDER BY id), count(price) OVER (PARTITION BY _site ORDER BY id) FROM sales ORDER BY id
[scale] SELECT id, avg(price) OVER (PARTITION BY _site ORDER BY id) FROM sales ORDER BY id
[scale] SELECT id, avg(qty) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM sales ORDER BY id
[scale] SELECT id, price / sum(price) OVER () FROM sales ORDER BY id
SELECT id, qty - lag(qty) OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, string_agg(sku, ',') OVER (ORDER BY id) FROM sales WHERE id < 6 ORDER BY id
SELECT id, count(*) FILTER (WHERE paid) OVER (ORDER BY id) FROM sales ORDER BY id
SELECT id, count(DISTINCT sku) OVER () FROM sales
SELECT _site, sum(qty), rank() OVER (ORDER BY sum(qty) DESC) FROM sales GROUP BY _site ORDER BY _site
SELECT _site, sum(sum(qty)) OVER (ORDER BY _site) FROM sales GROUP BY _site ORDER BY _site
SELECT * FROM (SELECT id, row_number() OVER (PARTITION BY _site ORDER BY price DESC NULLS LAST, id) AS r FROM sales) x WHERE r <= 2 ORDER BY id
SELECT id FROM sales ORDER BY row_number() OVER (ORDER BY qty DESC, id)
SELECT id, first_value(qty) OVER (ORDER BY id ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING) FROM sales ORDER BY id
SELECT id, first_value(qty) IGNORE NULLS OVER (ORDER BY id) FROM sales ORDER BY id
SELECT pg_typeof(row_number() OVER ()), pg_typeof(ntile(2) OVER (ORDER BY id)), pg_typeof(percent_rank() OVER ()) FROM sales LIMIT 1
SELECT qty, count(*), sum(count(*)) OVER (ORDER BY qty) FROM sales GROUP BY qty ORDER BY qty
SELECT id, bool_or(paid) OVER (PARTITION BY _site), array_agg(id) OVER (PARTITION BY _site ORDER BY id ROWS 1 PRECEDING) FROM sales ORDER BY id
SELECT count(*) FROM sales GROUP BY _site, sku ORDER BY 1 DESC, _site LIMIT 3
SELECT sku FROM sales GROUP BY sku ORDER BY count(*) DESC, sku LIMIT 3
SELECT sku, sum(qty) FROM sales GROUP BY sku ORDER BY sum(qty) DESC NULLS LAST, sku
SELECT avg(qty)::int, avg(price)::numeric(10,2), sum(price)::float8, sum(price)::text FROM sales
SELECT count(*)::int, count(*)::text, sum(qty)::bigint FROM sales
SELECT corr(1, 1), regr_r2(1, 2)
SELECT count(*) * 1.0 / 7 > 6 FROM sales
SELECT any_value(sku) FROM sales
SELECT percentile_cont(0.333) WITHIN GROUP (ORDER BY price), percentile_cont(1) WITHIN GROUP (ORDER BY price DESC), percentile_cont(0) WITHIN GROUP (ORDER BY weight) FROM sales
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY qty) FROM sales WHERE false
SELECT percentile_cont(1.5) WITHIN GROUP (ORDER BY qty) FROM sales
SELECT sum(r) FROM (SELECT rank() OVER (ORDER BY qty) AS r FROM sales) x
SELECT rank() OVER (ORDER BY qty) + 1, dense_rank() OVER (ORDER BY qty) * 2, ntile(3) OVER (ORDER BY id) FROM sales ORDER BY row_number() OVER (ORDER BY id)
