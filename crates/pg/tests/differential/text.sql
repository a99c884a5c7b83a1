-- Text: functions, patterns, order.
SELECT length('héllo')
SELECT char_length('日本語')
SELECT octet_length('héllo')
SELECT bit_length('a')
SELECT length('')
SELECT length(NULL::text)
SELECT length('  a ')
SELECT length(t), octet_length(t) FROM kinds ORDER BY id
SELECT substr('hello', 2)
SELECT substr('hello', 2, 3)
SELECT substr('hello', 0)
SELECT substr('hello', -1)
SELECT substr('hello', 0, 3)
SELECT substr('hello', -1, 4)
SELECT substr('hello', 10)
SELECT substr('hello', 2, 0)
SELECT substr('hello', 2, 100)
SELECT substr('hello', 2, -1)
SELECT substring('hello' FROM 2 FOR 3)
SELECT substring('hello' FROM 2)
SELECT substring('hello' FOR 2)
SELECT substring('hello', 2, 3)
SELECT substring('hello', 0, 2)
SELECT substring('foobar' FROM 'o.b')
SELECT substring('foobar' FROM 'o(.)b')
SELECT substring('foobar' FROM 'zz')
SELECT substring('foobar' SIMILAR '%#"o_b#"%' ESCAPE '#')
SELECT substring('日本語' FROM 2 FOR 1)
SELECT position('l' IN 'hello')
SELECT position('' IN 'hello')
SELECT position('z' IN 'hello')
SELECT strpos('hello', 'lo')
SELECT strpos('日本語', '語')
SELECT trim('  a b  ')
SELECT ltrim('  a')
SELECT rtrim('a  ')
SELECT btrim('xxaxx', 'x')
SELECT trim(BOTH 'x' FROM 'xxaxx')
SELECT trim(LEADING 'x' FROM 'xxaxx')
SELECT trim(TRAILING 'x' FROM 'xxaxx')
SELECT trim('xy' FROM 'xyaxyx')
SELECT ltrim('abcab', 'ab')
SELECT rtrim('abcab', 'ab')
SELECT trim(E'\t a \n')
SELECT lpad('5', 3, '0')
SELECT rpad('5', 3, '0')
SELECT lpad('hello', 3)
SELECT rpad('hello', 3)
SELECT lpad('5', 4, 'ab')
SELECT lpad('5', 0)
SELECT lpad('5', -1)
SELECT lpad('a', 3)
SELECT rpad('a', 3) || '|'
SELECT lpad('a', 3, '')
SELECT split_part('a,b,c', ',', 1)
SELECT split_part('a,b,c', ',', 3)
SELECT split_part('a,b,c', ',', 4)
SELECT split_part('a,b,c', ',', -1)
SELECT split_part('a,b,c', ',', -3)
SELECT split_part('a,b,c', ',', 0)
SELECT split_part('abc', '', 1)
SELECT split_part('', ',', 1)
SELECT initcap('hello wORLD')
SELECT initcap('o''brien mc-donald')
SELECT initcap('élan vital')
SELECT upper('straße')
SELECT lower('ÀÉÎ')
SELECT upper('naïve')
SELECT upper('ÿ')
SELECT translate('12345', '143', 'ax')
SELECT translate('abc', 'abc', '')
SELECT translate('hello', 'l', 'L')
SELECT overlay('Txxxxas' PLACING 'hom' FROM 2 FOR 4)
SELECT overlay('hello' PLACING 'XX' FROM 2)
SELECT left('hello', 2)
SELECT left('hello', -2)
SELECT left('hello', 0)
SELECT right('hello', 2)
SELECT right('hello', -2)
SELECT left('hello', 99)
SELECT left('hello', -99)
SELECT repeat('ab', 3)
SELECT repeat('ab', 0)
SELECT repeat('ab', -1)
SELECT reverse('hello')
SELECT reverse('日本語')
SELECT reverse('')
SELECT replace('hello', 'l', 'L')
SELECT replace('hello', '', 'x')
SELECT replace('aaa', 'aa', 'b')
SELECT replace('hello', 'l', '')
SELECT concat('a', NULL, 'b')
SELECT concat(1, 2.50, true)
SELECT concat()
SELECT concat(NULL)
SELECT concat_ws(',', 'a', NULL, 'b')
SELECT concat_ws(NULL, 'a')
SELECT 'a' || NULL
SELECT 'a' || 1
SELECT 1 || 'a'
SELECT 'a' || 2.50
SELECT 'a' || true
SELECT 'a' || 1e20::float8
SELECT 'a' || DATE '2026-01-05'
SELECT 'a' || TIMESTAMPTZ '2026-01-05 12:00+00'
SELECT ascii('A')
SELECT ascii('é')
SELECT ascii('日')
SELECT ascii('')
SELECT chr(65)
SELECT chr(233)
SELECT chr(26085)
SELECT chr(0)
SELECT chr(-1)
SELECT md5('hello')
SELECT md5('')
SELECT encode('abc', 'hex')
SELECT encode('abc', 'base64')
SELECT encode('\x00ff'::bytea, 'escape')
SELECT decode('616263', 'hex')
SELECT decode('YWJj', 'base64')
SELECT encode(sha256('abc'), 'hex')
SELECT encode(x, 'hex'), length(x), octet_length(x) FROM kinds ORDER BY id
SELECT encode(x, 'base64'), encode(x, 'escape') FROM kinds ORDER BY id
SELECT x || '\x41'::bytea FROM kinds ORDER BY id
SELECT substring(x FROM 1 FOR 1), get_byte('\x4142'::bytea, 1) FROM kinds ORDER BY id
SELECT decode('zz', 'hex')
SELECT convert_from('\xc3a9'::bytea, 'UTF8')
SELECT convert_to('é', 'UTF8')
SELECT quote_literal('it''s')
SELECT quote_ident('Weird Name')
SELECT quote_ident('lower')
SELECT quote_nullable(NULL)
SELECT quote_literal('back\slash')
SELECT format('%s is %s', 'a', 1)
SELECT format('%I', 'Weird')
SELECT format('%L', 'it''s')
SELECT format('%%')
SELECT format('%s', NULL)
SELECT format('%L', NULL)
SELECT format('%2$s %1$s', 'a', 'b')
SELECT format('%5s|%-5s|', 'a', 'b')
SELECT format('%s')
SELECT starts_with('hello', 'he')
SELECT starts_with('hello', '')
SELECT starts_with(NULL, 'a')
SELECT 'hello' ^@ 'he'
SELECT to_hex(255)
SELECT to_ascii('abc')
SELECT regexp_replace('hello world', 'o', '0')
SELECT regexp_replace('hello world', 'o', '0', 'g')
SELECT regexp_replace('Hello', 'h', 'J', 'i')
SELECT regexp_replace('John Smith', '(\w+) (\w+)', '\2, \1')
SELECT regexp_replace('abc', '', 'x')
SELECT regexp_replace('abc', '(b)', '[\&]')
SELECT regexp_replace('a.b.c', '\.', '-', 'g')
SELECT regexp_replace('aaa', 'a', 'b', 2)
SELECT regexp_replace('foo', 'x', 'y')
SELECT regexp_match('foobarbaz', 'ba(.)')
SELECT regexp_match('foobarbaz', 'ba.')
SELECT regexp_match('foo', 'z')
SELECT regexp_matches('foobarbaz', 'ba(.)', 'g')
SELECT regexp_matches('foo', 'z')
SELECT regexp_split_to_array('a1b22c', '\d+')
SELECT regexp_split_to_table('a1b22c', '\d+')
SELECT regexp_count('abcabc', 'b')
SELECT regexp_like('abc', 'B', 'i')
SELECT regexp_instr('abcabc', 'c')
SELECT regexp_substr('abc123', '\d+')
SELECT 'abc' ~ 'b'
SELECT 'abc' ~ 'B'
SELECT 'abc' ~* 'B'
SELECT 'abc' !~ 'b'
SELECT 'abc' !~* 'B'
SELECT 'abc' ~ '^b'
SELECT 'abc' ~ 'a$'
SELECT 'a' ~ 'a|b'
SELECT E'a\nb' ~ 'a.b'
SELECT E'a\nb' ~ '^b'
SELECT 'ab' ~ '\mab\M'
SELECT 'a b' ~ '\yb\y'
SELECT 'a1' ~ '[[:alpha:]][[:digit:]]'
SELECT 'é' ~ '\w'
SELECT 'é' ~ '[[:alpha:]]'
SELECT '١' ~ '\d'
SELECT 'abc' ~ '(?i)B'
SELECT 'aa' ~ '^(.)\1$'
SELECT 'abc' ~ '('
SELECT 'abc' LIKE 'a%'
SELECT 'abc' LIKE '_b_'
SELECT 'abc' LIKE 'b'
SELECT 'ABC' ILIKE 'a%'
SELECT 'abc' NOT LIKE 'a%'
SELECT 'abc' LIKE ''
SELECT '50%' LIKE '50\%'
SELECT '50x' LIKE '50\%'
SELECT '50%' LIKE '50!%' ESCAPE '!'
SELECT 'a_b' LIKE 'a\_b'
SELECT 'axb' LIKE 'a\_b'
SELECT 'a\b' LIKE 'a\\b'
SELECT 'a\b' LIKE 'a\b' ESCAPE ''
SELECT 'a' LIKE 'a\'
SELECT E'a\nb' LIKE 'a%b'
SELECT 'é' LIKE '_'
SELECT 'É' ILIKE 'é'
SELECT '🎉' LIKE '_'
SELECT 'abc' ~~ 'a%'
SELECT 'abc' !~~ 'a%'
SELECT 'abc' ~~* 'A%'
SELECT 'abc' !~~* 'A%'
SELECT 'abc' SIMILAR TO 'abc'
SELECT 'abc' SIMILAR TO 'a'
SELECT 'abc' SIMILAR TO '%(b|d)%'
SELECT 'abc' SIMILAR TO '(b|c)%'
SELECT 'abc' NOT SIMILAR TO 'a%'
SELECT 'a.c' SIMILAR TO 'a.c'
SELECT 'abc' SIMILAR TO 'a.c'
SELECT 'aaa' SIMILAR TO 'a{3}'
SELECT 'ab' SIMILAR TO 'a_'
SELECT 'xay' SIMILAR TO '%a%'
SELECT 'a' SIMILAR TO '[a-c]'
SELECT 'a%' SIMILAR TO 'a\%'
SELECT id FROM sales WHERE sku LIKE 'a%' ORDER BY id
SELECT id FROM sales WHERE sku LIKE 'x\_y' ORDER BY id
SELECT id FROM sales WHERE sku LIKE 'x_y' ORDER BY id
SELECT id FROM sales WHERE sku LIKE '50\%' ORDER BY id
SELECT id FROM sales WHERE note ILIKE '%über%' ORDER BY id
SELECT id FROM sales WHERE sku SIMILAR TO '(a|b)[0-9]' ORDER BY id
SELECT id FROM sales WHERE note ~ '^\w+$' ORDER BY id
SELECT id FROM sales WHERE note NOT LIKE '%o%' ORDER BY id
SELECT id FROM sales WHERE note LIKE '%\\%' ORDER BY id
SELECT id FROM sales WHERE note = '' ORDER BY id
SELECT id FROM sales WHERE note IS NULL ORDER BY id
SELECT id, t FROM kinds WHERE t LIKE '%"%' OR t LIKE '%''%' ORDER BY id
SELECT id FROM kinds WHERE t LIKE '100\%\_x' ORDER BY id
SELECT id FROM kinds WHERE t > 'Z' ORDER BY id
SELECT id FROM kinds WHERE t BETWEEN 'A' AND 'a' ORDER BY id
SELECT id FROM kinds WHERE lower(t) = 'abc' ORDER BY id
SELECT id FROM kinds WHERE upper(t) = upper('straße') ORDER BY id
SELECT upper(t), lower(t), initcap(t) FROM kinds ORDER BY id
SELECT reverse(t), left(t, 2), right(t, 2) FROM kinds ORDER BY id
SELECT md5(t) FROM kinds ORDER BY id
SELECT quote_literal(t) FROM kinds ORDER BY id
SELECT ascii(t) FROM kinds ORDER BY id
SELECT t || '|' || coalesce(t, 'none') FROM kinds ORDER BY id
SELECT DISTINCT note FROM sales ORDER BY note
SELECT DISTINCT note FROM sales ORDER BY note DESC
SELECT DISTINCT sku FROM sales ORDER BY sku
SELECT DISTINCT lower(sku) FROM sales ORDER BY 1
SELECT min(note), max(note), min(sku), max(sku) FROM sales
SELECT note, count(*) FROM sales GROUP BY note ORDER BY note NULLS FIRST
SELECT string_agg(sku, ',' ORDER BY id) FROM sales
SELECT string_agg(DISTINCT sku, ',' ORDER BY sku) FROM sales
SELECT string_agg(note, '|' ORDER BY id DESC) FROM sales WHERE id < 10
SELECT string_agg(sku, '' ORDER BY sku, id) FROM sales WHERE _site = 's01'
SELECT _site, string_agg(sku, ', ' ORDER BY sku) FROM sales WHERE qty > 3 GROUP BY _site ORDER BY _site
SELECT string_agg(note, ',') FROM sales WHERE false
SELECT string_agg(qty::text, ',' ORDER BY qty NULLS FIRST) FROM sales WHERE _site = 's02'
SELECT concat(sku, '-', qty, '-', price, '-', paid) FROM sales ORDER BY id
SELECT concat_ws('/', sku, note, day) FROM sales ORDER BY id
SELECT substring(sku FROM 1 FOR 1) AS s, count(*) FROM sales GROUP BY 1 ORDER BY 1
SELECT trim(note), length(trim(note)) FROM sales ORDER BY id
SELECT replace(note, ' ', '_') FROM sales ORDER BY id
SELECT lpad(id::text, 4, '0') FROM sales ORDER BY id
SELECT left(note, 3), right(note, 3), substr(note, 2, 2) FROM sales ORDER BY id
SELECT split_part(note, ' ', 1), split_part(note, ' ', -1) FROM sales ORDER BY id
SELECT 'a' < 'B'
SELECT 'a' < 'b'
SELECT 'Z' < 'a'
SELECT 'é' > 'z'
SELECT '' < 'a'
SELECT 'abc' = 'abc '
SELECT 'abc'::char(5) = 'abc'
SELECT 'a' 'b'
SELECT substring('abc' FROM 0 FOR 2)
SELECT substring('abc' FROM -5 FOR 2)
SELECT substring('abc' FROM 2 FOR -1)
SELECT length(repeat('x', 100000))
SELECT string_to_array('a,b,c', ',')
SELECT string_to_array('a,,c', ',', '')
SELECT string_to_array('abc', NULL)
SELECT array_to_string(ARRAY['a', NULL, 'c'], ',')
SELECT array_to_string(ARRAY['a', NULL, 'c'], ',', '?')
SELECT string_to_table('a,b', ',')
SELECT unistr('\00e9')
SELECT normalize('é', NFC)
SELECT 'abc' COLLATE "C" < 'abd'
SELECT parse_ident('a.b')
SELECT levenshtein('a', 'b')
SELECT character_length('abc')
SELECT lower(NULL)
SELECT upper('')
SELECT nosuchfunction('a')
SELECT length(1)
SELECT upper(1)
SELECT substr(12345, 2)
SELECT left(note) FROM sales
SELECT bit_length(t) FROM kinds ORDER BY id
SELECT strpos(t, 'a'), position('b' IN t) FROM kinds ORDER BY id
SELECT overlay(t PLACING '--' FROM 2 FOR 1) FROM kinds ORDER BY id
SELECT translate(t, 'abc', 'xyz') FROM kinds ORDER BY id
SELECT rpad(t, 5, '.'), repeat(t, 2) FROM kinds ORDER BY id
SELECT regexp_replace(t, '[aeiou]', '*', 'g') FROM kinds ORDER BY id
