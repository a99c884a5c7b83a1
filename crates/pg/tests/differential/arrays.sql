-- Arrays and JSON.
SELECT ARRAY[1, 2, 3]
SELECT ARRAY['a', 'b']
SELECT ARRAY[1.5, 2]
SELECT ARRAY[NULL, 1]
SELECT ARRAY[]::int[]
SELECT '{1,2,3}'::int[]
SELECT '{a,"b c",NULL,"NULL","q\"t","b\\s",""}'::text[]
SELECT '{{1,2},{3,4}}'::int[]
SELECT ARRAY[[1, 2], [3, 4]]
SELECT ARRAY[ARRAY['a'], ARRAY['b']]
SELECT '{1,2'::int[]
SELECT '{a}'::int[]
SELECT ARRAY[true, false, NULL]
SELECT ARRAY[DATE '2026-01-05']
SELECT ARRAY[TIMESTAMP '2026-01-05 12:00']
SELECT ARRAY[1.50, 2.00]
SELECT ARRAY['it''s', 'com,ma', 'br{ace', 'sp ace', 'quo"te', 'back\slash', 'null', '']
SELECT (ARRAY[1, 2, 3])[1]
SELECT (ARRAY[1, 2, 3])[0]
SELECT (ARRAY[1, 2, 3])[4]
SELECT (ARRAY[1, 2, 3])[-1]
SELECT (ARRAY[1, 2, 3, 4])[2:3]
SELECT (ARRAY[1, 2, 3])[2:]
SELECT (ARRAY[1, 2, 3])[:2]
SELECT (ARRAY[1, 2, 3])[5:6]
SELECT (ARRAY[[1, 2], [3, 4]])[2][1]
SELECT array_length(ARRAY[1, 2, 3], 1)
SELECT array_length(ARRAY[]::int[], 1)
SELECT array_length(ARRAY[1], 2)
SELECT cardinality(ARRAY[1, 2])
SELECT cardinality(ARRAY[]::int[])
SELECT array_ndims(ARRAY[1])
SELECT array_lower(ARRAY[1, 2], 1)
SELECT array_upper(ARRAY[1, 2], 1)
SELECT array_dims(ARRAY[1, 2])
SELECT ARRAY[1, 2] || 3
SELECT 0 || ARRAY[1, 2]
SELECT ARRAY[1] || ARRAY[2, 3]
SELECT ARRAY[1] || NULL
SELECT array_append(ARRAY[1], 2)
SELECT array_prepend(0, ARRAY[1])
SELECT array_cat(ARRAY[1], ARRAY[2])
SELECT array_remove(ARRAY[1, 2, 1], 1)
SELECT array_replace(ARRAY[1, 2, 1], 1, 9)
SELECT array_position(ARRAY['a', 'b', 'c'], 'b')
SELECT array_position(ARRAY['a'], 'z')
SELECT array_positions(ARRAY[1, 2, 1], 1)
SELECT ARRAY[1, 2] @> ARRAY[1]
SELECT ARRAY[1] <@ ARRAY[1, 2]
SELECT ARRAY[1, 2] && ARRAY[2, 3]
SELECT ARRAY[1, 2] = ARRAY[1, 2]
SELECT ARRAY[1, 2] < ARRAY[1, 3]
SELECT unnest(ARRAY[1, 2, 3])
SELECT unnest(ARRAY['a', NULL, 'b'])
SELECT unnest('{}'::int[])
SELECT * FROM unnest(ARRAY[1, 2]) AS u(v)
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b', 'c']) AS u(n, t)
SELECT * FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY
SELECT * FROM unnest(ARRAY['a', 'b']) WITH ORDINALITY AS u(v, n)
SELECT unnest(ARRAY[1, 2]), unnest(ARRAY['a', 'b', 'c'])
SELECT 1, unnest(ARRAY[1, 2])
SELECT id, unnest(ARRAY[1, 2]) FROM stores ORDER BY 1, 2
SELECT count(*) FROM (SELECT unnest(ARRAY[1, 2, 3]) AS v) s
SELECT array_agg(sku ORDER BY id) FROM sales WHERE id < 6
SELECT array_agg(qty ORDER BY id) FROM sales WHERE id < 12
SELECT array_agg(DISTINCT sku ORDER BY sku) FROM sales
SELECT array_agg(id) FROM sales WHERE false
SELECT _site, array_agg(id ORDER BY id DESC) FROM sales WHERE qty > 4 GROUP BY _site ORDER BY _site
SELECT array_agg(note ORDER BY id) FROM sales
SELECT array_agg(price ORDER BY id) FROM sales
SELECT array_agg(day ORDER BY id) FROM sales
SELECT array_agg(sold_at ORDER BY id) FROM sales
SELECT array_agg(paid ORDER BY id), array_agg(weight ORDER BY id) FROM sales
SELECT array_agg(t ORDER BY id), array_agg(x ORDER BY id) FROM kinds
SELECT array_length(array_agg(id), 1) FROM sales
SELECT ARRAY(SELECT id FROM sales WHERE qty > 5 ORDER BY id)
SELECT ARRAY(SELECT sku FROM sales WHERE false)
SELECT id, ARRAY(SELECT s.id FROM sales s WHERE s._site = st.id AND s.qty > 4 ORDER BY s.id) FROM stores st ORDER BY id
SELECT array_to_string(array_agg(sku ORDER BY id), '-') FROM sales WHERE id < 6
SELECT array_fill(0, ARRAY[3])
SELECT trim_array(ARRAY[1, 2, 3], 1)
SELECT generate_series(1, 3)
SELECT generate_series(3, 1, -1), generate_series(1, 2)
SELECT generate_series(1, 0)
SELECT * FROM generate_series(1, 10, 3)
SELECT * FROM generate_series(1, 3) AS g
SELECT g, g * 2 FROM generate_series(1, 3) AS g
SELECT g.n FROM generate_series(1, 3) AS g(n)
SELECT * FROM generate_series(1.0, 2.0, 0.5)
SELECT * FROM generate_series(1, 3) WITH ORDINALITY
SELECT * FROM generate_series(1, 5, 0)
SELECT id, generate_series(1, floor) FROM stores ORDER BY 1, 2
SELECT generate_subscripts(ARRAY['a', 'b'], 1)
SELECT '{"a": 1, "b": "x"}'::json -> 'a'
SELECT '{"a": 1, "b": "x"}'::json ->> 'b'
SELECT '{"a": 1}'::json ->> 'z'
SELECT '{"a": {"b": [1, 2]}}'::json #> '{a,b}'
SELECT '{"a": {"b": [1, 2]}}'::json #>> '{a,b,1}'
SELECT '[1, 2, 3]'::json -> 0
SELECT '[1, 2, 3]'::json -> -1
SELECT '[1, 2, 3]'::json ->> 5
SELECT '{"a": null}'::json -> 'a'
SELECT '{"a": null}'::json ->> 'a'
SELECT '{"b": 1, "a": 2}'::jsonb
SELECT '{"b": 1, "a": 2}'::jsonb -> 'a'
SELECT '{"a": 1.50}'::jsonb ->> 'a'
SELECT '{"a": "é\n"}'::json ->> 'a'
SELECT '{"a": true}'::json ->> 'a'
SELECT '{"a": {"b": 1}}'::json ->> 'a'
SELECT '{bad'::json
SELECT ('{"qty": "5"}'::json ->> 'qty')::int + 1
SELECT '{"qty": "x"}' ->> 'qty'
SELECT '{"a": 1}'::jsonb @> '{"a": 1}'
SELECT '{"a": 1}'::jsonb ? 'a'
SELECT json_build_object('a', 1, 'b', 'x')
SELECT json_build_array(1, 'a', NULL)
SELECT to_json('a'::text)
SELECT to_json(1.5)
SELECT jsonb_build_object('a', 1)
SELECT row_to_json(ROW(1, 'a'))
SELECT json_agg(qty ORDER BY id) FROM sales WHERE id < 5
SELECT json_array_length('[1, 2]')
SELECT json_typeof('{"a": 1}')
SELECT jsonb_typeof('1')
SELECT * FROM json_array_elements('[1, "a"]')
SELECT * FROM json_each('{"a": 1, "b": 2}')
SELECT json_extract_path_text('{"a": {"b": "c"}}', 'a', 'b')
SELECT array_sort(ARRAY[2, 1])
SELECT ARRAY[1, 'a']
SELECT ARRAY[1, 2.5]
SELECT ARRAY[]
SELECT array_length(1, 1)
SELECT ARRAY[1, 2]::text[]
SELECT ARRAY['1', '2']::int[]
SELECT ARRAY[1, 2]::text
SELECT any_value(1)
SELECT g, g * 2 AS twice FROM generate_series(1, 3) AS g WHERE g > 1
SELECT generate_series FROM generate_series(1, 3)
SELECT g.g, h.h FROM generate_series(1, 2) g, generate_series(1, 2) h ORDER BY 1, 2
