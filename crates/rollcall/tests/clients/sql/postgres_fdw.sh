#!/usr/bin/env bash
# postgres_fdw: a PostgreSQL as a client of HQ. It describes tables from HQ's catalogue, asks by cursors within a
# transaction of REPEATABLE READ, sets its own time zone and formats, and uses savepoints beneath its own.
# LOCAL_HOST, LOCAL_PORT and LOCAL_USER are of the PostgreSQL; the test starts it.
set -uo pipefail
failed=0
at_hq() { [[ "${AGAINST:-hq}" == hq ]]; }
ask() {
  PGHOST=$LOCAL_HOST PGPORT=$LOCAL_PORT PGUSER=$LOCAL_USER PGPASSWORD='' PGDATABASE=postgres PGSSLMODE=disable psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" 2>&1 |
    grep -vE '^(WARNING|NOTICE|HINT): '
}
check() {
  local name=$1 expected=$2 got
  shift 2
  got=$(ask "$@")
  if [[ "$got" == "$expected" ]]; then echo "ok $name"; else failed=1; echo "FAIL $name: ${got//$'\n'/ | }"; fi
}
says() {
  local name=$1 word=$2 got
  shift 2
  got=$(ask "$@")
  if [[ "$got" == *"$word"* ]]; then echo "ok $name"; else failed=1; echo "FAIL $name: ${got//$'\n'/ | }"; fi
}
# server NAME OPTION…: a foreign server and what of it is imported.
server() {
  ask -c "SET client_min_messages = error; DROP SERVER IF EXISTS $1 CASCADE; DROP SCHEMA IF EXISTS $1 CASCADE" \
    -c "CREATE SERVER $1 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$PGHOST', port '$PGPORT', dbname '$PGDATABASE', sslmode 'require'$2)" \
    -c "CREATE USER MAPPING FOR CURRENT_USER SERVER $1 OPTIONS (user '$PGUSER', password '$PGPASSWORD')" \
    -c "CREATE SCHEMA $1" -c "IMPORT FOREIGN SCHEMA public LIMIT TO (sales, sites) FROM SERVER $1 INTO $1"
}
check "extension" "" -c "SET client_min_messages = error; CREATE EXTENSION IF NOT EXISTS postgres_fdw; SET timezone = 'UTC'"
got=$(server hq ", fetch_size '3'")
if [[ -z "$got" ]]; then echo "ok import foreign schema"; else failed=1; echo "FAIL import foreign schema: ${got//$'\n'/ | }"; fi
check "types of columns" $'id bigint\nitem text\nprice numeric(10,2)\nday date\nsold_at timestamp with time zone\nreceipt bytea' -c \
  "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'hq.sales'::regclass
   AND attname IN ('id', 'item', 'price', 'day', 'sold_at', 'receipt') ORDER BY attnum"
check "select" $'1|tea|5|2.50|0.25|t|2026-01-10|2026-01-10 18:00:00+00|\\x00ff41\n2|o\'pie, "warm"|7|12.99||f|2026-02-10|2026-02-10 18:00:00+00|\n3|Grüße ☕|2|1000.01|-1.5|||2026-02-12 07:30:00+00|\\x\n4||||0|t|2026-02-12|2026-02-12 16:15:30.123456+00|\\xab' \
  -c "SET timezone = 'UTC'" -c "SELECT id, item, qty, price, rebate, paid, day, sold_at, receipt FROM hq.sales WHERE _site = 'salem-01' ORDER BY id"
check "conditions" "2" -c "SELECT count(*) FROM hq.sales WHERE day = '2026-02-10' AND price > 12.5 AND item LIKE '%warm%' AND paid IS FALSE"
check "arrays" "4" -c "SELECT count(*) FROM hq.sales WHERE id = ANY('{1,3}'::bigint[])"
check "groups" $'OR|14|1015.50\nWA|14|1015.50' \
  -c "SELECT s.state, sum(x.qty), sum(x.price) FROM hq.sales x JOIN hq.sites s ON s.id = x._site GROUP BY 1 ORDER BY 1"
check "limit" $'1\n2' -c "SELECT id FROM hq.sales WHERE _site = 'salem-01' ORDER BY id LIMIT 2"
check "parameters of a prepared statement" $'2\n2\n2\n2\n2\n2\n2' -c "PREPARE p(bigint) AS SELECT count(*) FROM hq.sales WHERE qty = \$1" \
  -c "EXECUTE p(7)" -c "EXECUTE p(7)" -c "EXECUTE p(7)" -c "EXECUTE p(7)" -c "EXECUTE p(7)" -c "EXECUTE p(2)" -c "EXECUTE p(5)"
check "a join that asks row by row" $'1\n2\n3\n4' -c "SET enable_hashjoin = off; SET enable_mergejoin = off" \
  -c "SELECT x.id FROM generate_series(1, 4) AS g(v) JOIN hq.sales x ON x.id = g.v AND x._site = 'salem-01' ORDER BY 1"
check "savepoints" $'8\n4' -c "BEGIN; SELECT count(*) FROM hq.sales; SAVEPOINT a" -c "SELECT count(*) FROM hq.sales WHERE _site = 'salem-01'; ROLLBACK TO a; COMMIT"
check "analyze" "8" -c "ANALYZE hq.sales" -c "SELECT count(*) FROM hq.sales"
if at_hq; then
  got=$(server strict ", options '-c rollcall.coverage=strict'")
  says "strict by options" "tacoma-01" -c "SELECT count(*) FROM strict.sales"
fi
exit $failed
