-- Three-valued logic, comparisons, conditionals.
SELECT NULL AND true
SELECT NULL AND false
SELECT NULL OR true
SELECT NULL OR false
SELECT NOT NULL
SELECT true AND NULL::boolean
SELECT false OR NULL::boolean
SELECT NULL = NULL
SELECT NULL <> NULL
SELECT NULL = 1
SELECT NULL < 1
SELECT NULL IS NULL
SELECT 1 IS NULL
SELECT NULL IS NOT NULL
SELECT 1 IS NOT NULL
SELECT NULL IS DISTINCT FROM NULL, 1 IS DISTINCT FROM NULL, 1 IS NOT DISTINCT FROM 1, NULL IS NOT DISTINCT FROM NULL
SELECT true IS TRUE
SELECT NULL::boolean IS TRUE
SELECT NULL::boolean IS NOT TRUE
SELECT false IS FALSE
SELECT NULL::boolean IS UNKNOWN
SELECT true IS NOT UNKNOWN
SELECT 1 IN (1, 2)
SELECT 1 IN (2, 3)
SELECT 1 IN (2, NULL)
SELECT 1 IN (1, NULL)
SELECT NULL IN (1, 2)
SELECT 1 NOT IN (2, 3)
SELECT 1 NOT IN (2, NULL)
SELECT 1 NOT IN (1, NULL)
SELECT NULL NOT IN (1)
SELECT id FROM sales WHERE qty IN (1, 2, NULL) ORDER BY id
SELECT id FROM sales WHERE qty NOT IN (1, 2) ORDER BY id
SELECT id FROM sales WHERE qty NOT IN (1, 2, NULL) ORDER BY id
SELECT id FROM sales WHERE qty <> 1 ORDER BY id
SELECT id FROM sales WHERE NOT qty = 1 ORDER BY id
SELECT id FROM sales WHERE qty IS DISTINCT FROM 1 ORDER BY id
SELECT id FROM sales WHERE qty IS NOT DISTINCT FROM NULL ORDER BY id
SELECT id FROM sales WHERE NOT (qty > 3) ORDER BY id
SELECT id FROM sales WHERE qty > 3 OR price > 5 ORDER BY id
SELECT id FROM sales WHERE NOT (qty > 3 AND price > 5) ORDER BY id
SELECT id FROM sales WHERE paid ORDER BY id
SELECT id FROM sales WHERE NOT paid ORDER BY id
SELECT id FROM sales WHERE paid IS NOT TRUE ORDER BY id
SELECT id FROM sales WHERE paid IS UNKNOWN ORDER BY id
SELECT id FROM sales WHERE paid = false ORDER BY id
SELECT id FROM sales WHERE coalesce(paid, false) = false ORDER BY id
SELECT id FROM sales WHERE qty IN (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty NOT IN (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty NOT IN (SELECT floor FROM stores WHERE floor IS NOT NULL) ORDER BY id
SELECT id FROM sales WHERE _site NOT IN (SELECT id FROM stores) ORDER BY id
SELECT id FROM sales WHERE _site NOT IN (SELECT state FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty > ALL (SELECT floor FROM stores WHERE floor IS NOT NULL) ORDER BY id
SELECT id FROM sales WHERE qty > ANY (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty = ANY (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty <> ALL (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty = SOME (SELECT floor FROM stores) ORDER BY id
SELECT id FROM sales WHERE qty > ALL (SELECT floor FROM stores WHERE false) ORDER BY id
SELECT id FROM sales WHERE qty > ANY (SELECT floor FROM stores WHERE false) ORDER BY id
SELECT id FROM sales WHERE qty = ANY (ARRAY[1, 2]) ORDER BY id
SELECT id FROM sales WHERE qty = ANY ('{1,2}') ORDER BY id
SELECT id FROM sales WHERE qty = ANY ('{1,NULL}'::bigint[]) ORDER BY id
SELECT id FROM sales WHERE qty <> ALL (ARRAY[1, 2]) ORDER BY id
SELECT id FROM sales WHERE qty <> ALL ('{1,NULL}') ORDER BY id
SELECT id FROM sales WHERE qty > ANY (ARRAY[5, 10]) ORDER BY id
SELECT id FROM sales WHERE qty < ALL (ARRAY[5, 10]) ORDER BY id
SELECT id FROM sales WHERE qty = ANY (NULL::bigint[]) ORDER BY id
SELECT id FROM sales WHERE qty = ANY ('{}') ORDER BY id
SELECT id FROM sales WHERE qty <> ALL ('{}') ORDER BY id
SELECT id FROM sales WHERE sku = ANY ('{a1,"É7","50%"}') ORDER BY id
SELECT id FROM sales WHERE sku = ANY ('{a1,"x_y",NULL}'::text[]) ORDER BY id
SELECT id FROM sales WHERE _site = ANY ('{s01,"s02"}') ORDER BY id
SELECT id FROM sales WHERE note = ANY ('{"O''Brien","back\\slash","two  words"}') ORDER BY id
SELECT id FROM sales WHERE note = ANY (ARRAY['O''Brien', 'back\slash', '']) ORDER BY id
SELECT id FROM sales WHERE sku LIKE ANY (ARRAY['a%', 'b%']) ORDER BY id
SELECT id FROM sales WHERE sku LIKE ALL (ARRAY['a%', '%1']) ORDER BY id
SELECT id FROM sales WHERE sku NOT LIKE ALL (ARRAY['a%', 'b%']) ORDER BY id
SELECT id FROM sales WHERE 'a1' = ANY (ARRAY[sku, note]) ORDER BY id
SELECT 1 = ANY (ARRAY[1, NULL])
SELECT 2 = ANY (ARRAY[1, NULL])
SELECT 1 <> ALL (ARRAY[2, NULL])
SELECT 1 <> ALL (ARRAY[1, NULL])
SELECT (1, 2) = (1, 2)
SELECT (1, 2) < (1, 3)
SELECT (1, NULL) = (1, 2)
SELECT (1, NULL) = (2, NULL)
SELECT ROW(1, NULL) IS NULL
SELECT ROW(NULL, NULL) IS NULL
SELECT ROW(1, NULL) IS NOT NULL
SELECT id FROM sales WHERE (_site, qty) IN (('s01', 1), ('s02', 2)) ORDER BY id
SELECT id FROM sales WHERE (_site, sku) = ('s01', 'a1') ORDER BY id
SELECT id FROM sales WHERE (qty, id) > (4, 20) ORDER BY id
SELECT coalesce(NULL, 1, 2)
SELECT coalesce(NULL, NULL)
SELECT coalesce('a', 'b')
SELECT coalesce(NULL, 1.5, 2)
SELECT coalesce(1, 2.5)
SELECT coalesce(NULL::int, 2.5)
SELECT coalesce(qty, -99), coalesce(note, 'none'), coalesce(day, DATE '2000-01-01') FROM sales ORDER BY id
SELECT coalesce(qty, price, 0) FROM sales ORDER BY id
SELECT coalesce(1, 1/0)
SELECT coalesce(qty, 'x') FROM sales
SELECT nullif(1, 1)
SELECT nullif(1, 2)
SELECT nullif(NULL, 1)
SELECT nullif('a', '')
SELECT nullif('', '')
SELECT nullif(qty, 0), nullif(note, '') FROM sales ORDER BY id
SELECT greatest(1, 2, NULL)
SELECT least(NULL, 3, 2)
SELECT greatest('a', 'B')
SELECT greatest(DATE '2026-01-01', '2026-02-01')
SELECT greatest(qty, 3), least(qty, 3) FROM sales ORDER BY id
SELECT CASE WHEN 1 = 1 THEN 'a' END
SELECT CASE WHEN 1 = 2 THEN 'a' END
SELECT CASE WHEN NULL THEN 'a' ELSE 'b' END
SELECT CASE 1 WHEN 1 THEN 'one' WHEN 2 THEN 'two' END
SELECT CASE NULL WHEN NULL THEN 'null' ELSE 'no' END
SELECT CASE qty WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE 'many' END FROM sales ORDER BY id
SELECT CASE WHEN qty > 3 THEN 'big' WHEN qty <= 3 THEN 'small' ELSE 'unknown' END AS size, count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT CASE WHEN qty = 0 THEN NULL ELSE 100 / qty END FROM sales ORDER BY id
SELECT CASE WHEN true THEN 1 ELSE 2.5 END
SELECT CASE WHEN false THEN 1 ELSE 2.5 END
SELECT CASE WHEN true THEN 1 ELSE 'a' END
SELECT CASE WHEN true THEN 1 ELSE '2' END
SELECT 1 WHERE NULL
SELECT 1 WHERE true
SELECT 1 WHERE 'true'
SELECT count(*) FROM sales WHERE NULL
SELECT bool_and(paid), bool_or(paid), every(paid) FROM sales
SELECT _site, bool_and(qty > 0), bool_or(qty > 10) FROM sales GROUP BY _site ORDER BY _site
SELECT num_nulls(1, NULL, 2)
SELECT num_nonnulls(1, NULL, 2)
SELECT true > false
SELECT true = 't'
SELECT false < NULL
SELECT min(y::int), max(y::int) FROM kinds
SELECT count(y), count(NULLIF(y, false)) FROM kinds
SELECT qty = 1 AS one, qty > 2 AND price < 5 AS both FROM sales ORDER BY id
SELECT paid, count(*) FROM sales GROUP BY paid ORDER BY paid
SELECT paid, count(*) FROM sales GROUP BY paid ORDER BY paid DESC
SELECT NOT paid, paid OR qty > 2, paid AND qty > 2 FROM sales ORDER BY id
SELECT 'a' IN ('a', 'b')
SELECT 'a' IN ('b', NULL)
SELECT 2 IN (1, 2.0, 3)
SELECT EXISTS (SELECT 1)
SELECT EXISTS (SELECT 1 WHERE false)
SELECT NOT EXISTS (SELECT NULL)
SELECT 3 BETWEEN 5 AND 1
SELECT NULL BETWEEN 1 AND 2
SELECT 1 BETWEEN NULL AND 0
SELECT 1 ISNULL
SELECT 1 NOTNULL
SELECT xor(true, false)
SELECT true # false
SELECT 1 == 1
