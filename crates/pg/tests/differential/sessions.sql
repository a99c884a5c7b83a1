-- Transactions, cursors, settings, several statements at once.
SELECT 1; SELECT 2
SELECT 1; SELECT 1 / 0; SELECT 3
BEGIN; SELECT 1; COMMIT; SELECT 2
BEGIN ;; SELECT 1
BEGIN ;; SELECT 1 / 0 ;; SELECT 1
BEGIN ;; SELECT 1 / 0 ;; ROLLBACK ;; SELECT 1
BEGIN ;; SELECT 1 / 0 ;; COMMIT ;; SELECT 1
BEGIN ;; SAVEPOINT a ;; SELECT 1 / 0 ;; ROLLBACK TO a ;; SELECT 1
BEGIN ;; SAVEPOINT a ;; SELECT 1 / 0 ;; ROLLBACK TO SAVEPOINT a ;; RELEASE a ;; SELECT 1
BEGIN ;; SAVEPOINT a ;; RELEASE SAVEPOINT a ;; ROLLBACK TO a ;; SELECT 1
BEGIN ;; SAVEPOINT a ;; SAVEPOINT b ;; ROLLBACK TO a ;; ROLLBACK TO b ;; SELECT 1
BEGIN ;; ROLLBACK TO nothing ;; SELECT 1
SAVEPOINT a ;; SELECT 1
START TRANSACTION READ ONLY ;; SELECT 1
BEGIN ISOLATION LEVEL REPEATABLE READ ;; SHOW transaction_isolation
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE ;; SELECT 1
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH 3 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH 3 FROM c ;; FETCH 2 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH NEXT FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH FORWARD 4 IN c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH ALL FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH ALL FROM c ;; FETCH 1 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH FORWARD ALL FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; MOVE 5 FROM c ;; FETCH 1 FROM c
BEGIN ;; DECLARE c SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH 3 FROM c ;; FETCH PRIOR FROM c
BEGIN ;; DECLARE c NO SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH 3 FROM c ;; FETCH PRIOR FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; CLOSE c ;; FETCH 1 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; CLOSE ALL ;; FETCH 1 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT id FROM sales ORDER BY id ;; COMMIT ;; FETCH 1 FROM c
BEGIN ;; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM sales ORDER BY id ;; COMMIT ;; FETCH 2 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT 1 / 0 ;; FETCH 1 FROM c
BEGIN ;; DECLARE c CURSOR FOR SELECT nothing FROM sales
BEGIN ;; DECLARE c CURSOR FOR SELECT 1 ;; DECLARE c CURSOR FOR SELECT 2 ;; SELECT 1
BEGIN ;; DECLARE "C d" CURSOR FOR SELECT 1 ;; FETCH 1 FROM "C d"
BEGIN ;; DECLARE c BINARY CURSOR FOR SELECT 1 ;; CLOSE c ;; SELECT 1
DECLARE c CURSOR FOR SELECT 1
FETCH 1 FROM nothing
CLOSE nothing
SET application_name = 'x' ;; SHOW application_name
SET application_name TO 'x' ;; SELECT current_setting('application_name')
SET application_name = 'x' ;; RESET application_name ;; SHOW application_name
SET SESSION application_name = 'x' ;; SHOW application_name
BEGIN ;; SET LOCAL application_name = 'x' ;; SHOW application_name
BEGIN ;; SET LOCAL application_name = 'x' ;; COMMIT ;; SHOW application_name
BEGIN ;; SET application_name = 'x' ;; ROLLBACK ;; SHOW application_name
BEGIN ;; SAVEPOINT a ;; SET application_name = 'x' ;; ROLLBACK TO a ;; SHOW application_name
SELECT set_config('application_name', 'x', false) ;; SHOW application_name
BEGIN ;; SELECT set_config('application_name', 'x', true) ;; COMMIT ;; SHOW application_name
SELECT set_config('application_name', 'x', false)
SELECT current_setting('application_name') = ''
SELECT current_setting('nosuch.setting', true)
SELECT current_setting('nosuch.setting')
SET nosuch.setting = 'x' ;; SHOW nosuch.setting
SET nosuchsetting = 'x'
SET statement_timeout = '5s' ;; SHOW statement_timeout
SET statement_timeout = 5000 ;; SHOW statement_timeout
SET statement_timeout = 0 ;; SHOW statement_timeout
SET statement_timeout = 'x'
SET search_path = public ;; SHOW search_path
SET search_path TO public, pg_catalog ;; SELECT count(*) FROM sales
SET client_encoding = 'UTF8' ;; SHOW client_encoding
SET client_encoding = 'LATIN1' ;; SELECT 'é'
SET NAMES 'UTF8' ;; SELECT 'é'
SET default_transaction_read_only = on ;; SHOW default_transaction_read_only
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY ;; SELECT 1
SET TRANSACTION ISOLATION LEVEL SERIALIZABLE ;; SELECT 1
SET standard_conforming_strings = off ;; SELECT 'a\\b'
SET work_mem = '64MB' ;; SHOW work_mem
SET DateStyle TO ISO ;; SHOW DateStyle
SET datestyle = 'SQL, DMY' ;; SELECT DATE '2026-03-08'
SET intervalstyle = 'postgres' ;; SELECT interval '1 day'
DISCARD ALL ;; SELECT 1
DISCARD PLANS ;; SELECT 1
DISCARD TEMP ;; SELECT 1
UNLISTEN *
CLOSE ALL
RESET ALL ;; SELECT 1
PREPARE p AS SELECT 1 ;; EXECUTE p
PREPARE p (int) AS SELECT $1 + 1 ;; EXECUTE p (5)
PREPARE p AS SELECT $1::text ;; EXECUTE p ('a')
PREPARE p AS SELECT 1 ;; DEALLOCATE p ;; EXECUTE p
PREPARE p AS SELECT 1 ;; DEALLOCATE ALL ;; SELECT 1
EXECUTE nothing
PREPARE p (int, text) AS SELECT $1, $2 ;; EXECUTE p (5)
PREPARE p (bigint[]) AS SELECT count(*) FROM sales WHERE id = ANY($1) ;; EXECUTE p ('{1,2}') ;; EXECUTE p (NULL)
PREPARE p (numeric) AS SELECT id FROM sales WHERE price > $1 ORDER BY id ;; EXECUTE p (1 + 1.5) ;; EXECUTE p (-1)
PREPARE p AS SELECT id FROM sales WHERE sku = $1 ORDER BY id ;; EXECUTE p (sku)
PREPARE p AS SELECT 1 ;; PREPARE p AS SELECT 2
DEALLOCATE nothing
BEGIN ;; DECLARE c SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH LAST FROM c ;; FETCH BACKWARD 3 FROM c ;; FETCH ABSOLUTE 2 FROM c ;; FETCH RELATIVE 2 FROM c ;; FETCH RELATIVE 0 FROM c ;; FETCH FIRST FROM c ;; FETCH PRIOR FROM c ;; FETCH NEXT FROM c
BEGIN ;; DECLARE c SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; MOVE FORWARD ALL FROM c ;; FETCH BACKWARD ALL FROM c ;; MOVE 3 IN c ;; FETCH c ;; MOVE BACKWARD c ;; FETCH c
BEGIN ;; DECLARE c NO SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; MOVE c ;; FETCH PRIOR FROM c
BEGIN ;; DECLARE c NO SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; MOVE ALL IN c ;; FETCH c
MOVE 1 FROM nothing
FETCH 1 FROM nothing
SELECT pg_relation_size('sales'::regclass) >= 0, 'public.sales'::regclass::oid > 0
SELECT 'nothing'::regclass::oid
SELECT x FROM unnest(ARRAY['a', 'b']) AS x
SELECT 1.5 = ANY('{1.5,2}'::numeric[]::decimal[]), 1 = ANY(NULL::int[])
SELECT current_database()
SELECT current_schema(), current_schemas(false)
SELECT current_user = session_user
SELECT version() LIKE 'PostgreSQL%'
SELECT pg_is_in_recovery(), pg_backend_pid() > 0
SELECT txid_current() > 0
SELECT pg_sleep(0)
SELECT inet_server_port() IS NULL OR true
SELECT has_table_privilege('sales', 'SELECT')
SELECT to_regclass('sales')::text, to_regclass('nothing')
SELECT 'sales'::regclass::text
SELECT format_type(23, NULL), format_type(1700, 786438), format_type(1043, 7)
SELECT column_name, data_type, is_nullable, numeric_precision, numeric_scale FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'sales' AND column_name NOT LIKE '\_%' ORDER BY ordinal_position
SELECT column_name, data_type, udt_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'kinds' AND column_name NOT LIKE '\_%' ORDER BY ordinal_position
SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'stores' ORDER BY ordinal_position
SELECT table_schema, table_name FROM information_schema.tables WHERE table_name IN ('sales', 'stores', 'kinds') AND table_schema = 'public' ORDER BY 2
SELECT relname, relkind FROM pg_class WHERE relname IN ('sales', 'stores') AND relnamespace = 'public'::regnamespace ORDER BY 1
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'sales'::regclass AND attnum > 0 AND attname NOT LIKE '\_%' ORDER BY attnum
SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 0 ORDER BY attnum
SELECT typname, typlen, typtype, typcategory FROM pg_type WHERE oid IN (16, 20, 23, 25, 701, 1082, 1184, 1700) ORDER BY oid
SELECT oid::regtype, typelem::regtype FROM pg_type WHERE typname IN ('_int4', '_text', '_numeric') ORDER BY typname
SELECT nspname FROM pg_namespace WHERE nspname IN ('public', 'pg_catalog', 'information_schema') ORDER BY 1
SELECT datname FROM pg_database WHERE datname = current_database()
SELECT count(*) FROM information_schema.key_column_usage WHERE table_name = 'nothing'
INSERT INTO nothing VALUES (1)
DELETE FROM nothing
UPDATE nothing SET a = 1
DROP TABLE nothing
TRUNCATE nothing
VACUUM nothing
LOCK TABLE nothing
COPY nothing TO STDOUT
PREPARE p AS SELECT $1 / 2 ;; EXECUTE p (5)
PREPARE p (varchar(3)) AS SELECT $1 ;; EXECUTE p ('abcdef')
PREPARE p AS SELECT $1, $1 ;; EXECUTE p ('a')
PREPARE p AS SELECT nothing FROM sales
BEGIN ;; DECLARE c SCROLL CURSOR FOR SELECT id FROM sales ORDER BY id ;; FETCH ABSOLUTE -1 FROM c ;; FETCH -2 FROM c ;; FETCH RELATIVE -3 FROM c ;; MOVE -1 FROM c ;; FETCH FORWARD -1 FROM c ;; FETCH BACKWARD -1 FROM c
SELECT 'sales'::regclass
SELECT ('sales'::regclass)::text, 'sales'::regclass::varchar
BEGIN ISOLATION LEVEL REPEATABLE READ ;; SELECT count(*) FROM sales ;; SHOW transaction_isolation ;; COMMIT ;; SHOW transaction_isolation
BEGIN ISOLATION LEVEL SERIALIZABLE ;; SHOW transaction_isolation ;; ROLLBACK ;; SHOW transaction_isolation
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ ;; BEGIN ;; SHOW transaction_isolation
SET default_transaction_isolation = 'serializable' ;; BEGIN ;; SHOW transaction_isolation
BEGIN ;; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ ;; SHOW transaction_isolation
BEGIN ISOLATION LEVEL REPEATABLE READ ;; SELECT 1 ;; SET TRANSACTION ISOLATION LEVEL READ COMMITTED
SET transaction_isolation = 'serializable' ;; SHOW transaction_isolation
BEGIN ;; SET transaction_isolation = 'repeatable read' ;; SHOW transaction_isolation
