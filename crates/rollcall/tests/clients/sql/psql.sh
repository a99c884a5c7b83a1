#!/usr/bin/env bash
# psql: what a person types, and what its backslash commands ask of the catalogue.
# AGAINST=postgresql leaves out what only HQ has (coverage).
set -uo pipefail
failed=0
ask() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" 2>&1; }
# Notes of coverage are in the way of what is compared.
without_notes() { grep -vE '^(WARNING|NOTICE|HINT): '; }
# check NAME EXPECTED COMMAND…: what the command says.
check() {
  local name=$1 expected=$2 got
  shift 2
  got=$("$@")
  if [[ "$got" == "$expected" ]]; then echo "ok $name"; else failed=1; echo "FAIL $name: ${got//$'\n'/ | }"; fi
}
# says NAME PATTERN COMMAND…: what the command says contains lines that match, one after the other.
says() {
  local name=$1 pattern=$2 got
  shift 2
  got=$("$@")
  if grep -qzP "$pattern" <<<"$got"; then echo "ok $name"; else failed=1; echo "FAIL $name: ${got//$'\n'/ | }"; fi
}
at_hq() { [[ "${AGAINST:-hq}" == hq ]]; }
quietly() { ask "$@" | without_notes; }
after() { { echo "$1"; shift; printf '%s\n' "$@"; } | quietly; }

check "select every type" $'7|42|9007199254740993|12345.6789|1.5|Grüße ☕, "o\'pie"|2026-01-31|2026-01-31 08:00:00.123456+00|2026-01-31 10:00:00.5|t|\\x00ff41|' \
  quietly -c "SELECT 7::smallint, 42::int, 9007199254740993::bigint, 12345.6789::numeric(12,4), 1.5::float8, 'Grüße ☕, \"o''pie\"'::text,
    DATE '2026-01-31', TIMESTAMPTZ '2026-01-31 10:00:00.123456+02', TIMESTAMP '2026-01-31 10:00:00.5', true, '\\x00ff41'::bytea, NULL::text"
check "select rows" $'1|tea|5|2.50|0.25|t|2026-01-10|2026-01-10 18:00:00+00|\\x00ff41\n4||||0|t|2026-02-12|2026-02-12 16:15:30.123456+00|\\xab' \
  quietly -c "SELECT id, item, qty, price, rebate, paid, day, sold_at, receipt FROM sales WHERE _site = 'salem-01' AND id IN (1, 4) ORDER BY id"
check "variables" "2" quietly -v wanted="o'pie, \"warm\"" <<<"SELECT count(*) FROM sales WHERE item = :'wanted'"
check "prepare and execute" $'2\n4' after "PREPARE p (bigint[], numeric) AS SELECT count(*) FROM sales WHERE id = ANY(\$1) AND price > \$2;" \
  "EXECUTE p('{2}', 12.5);" "EXECUTE p('{2,3}', 12.5);" "DEALLOCATE p;"
check "two columns of one name" "1|1|5" quietly -c "SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'"
check "several statements in one" $'1\n2' quietly -c "SELECT 1; SELECT 2"
if at_hq; then
  says "note" '8\n' ask -c "SELECT count(*) FROM sales"
  says "note names the site" 'WARNING:.*tacoma-01' ask -c "SELECT count(*) FROM sales"
  says "strict" '^ERROR:  RC001.*tacoma-01' ask -v VERBOSITY=verbose -c "SET rollcall.coverage = 'strict'" -c "SELECT count(*) FROM sales"
  says "strict by options" 'ERROR:.*tacoma-01' env PGOPTIONS="-c rollcall.coverage=strict" bash -c "psql -X -c 'SELECT count(*) FROM sales' 2>&1"
fi
for reset in "DISCARD ALL" "RESET ALL"; do
  check "reset: $reset" $'0\n8' after "SET statement_timeout = 54321; SET rollcall.coverage = 'strict';" "$reset;" "SHOW statement_timeout;" "SELECT count(*) FROM sales;"
done
check "what a pool sends" $'\n8' after "SET rollcall.coverage = 'strict';" "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;" "SELECT count(*) FROM sales;"
check "savepoint" $'1\nERROR:  42P01\nERROR:  25P02\n8' after "\\set ON_ERROR_STOP 0" "\\set VERBOSITY sqlstate" "BEGIN;" "SELECT 1;" "SAVEPOINT a;" \
  "SELECT * FROM nosuch;" "SELECT 1;" "ROLLBACK TO a;" "SELECT count(*) FROM sales;" "COMMIT;"
check "an error undoes its statement alone" $'ERROR:  42P01\n8' after "\\set ON_ERROR_STOP 0" "\\set VERBOSITY sqlstate" "\\set ON_ERROR_ROLLBACK on" "BEGIN;" \
  "SELECT * FROM nosuch;" "SELECT count(*) FROM sales;" "COMMIT;"
check "cursor" $'1\n2\n4\n3' after "BEGIN;" "DECLARE c SCROLL CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id;" "FETCH 2 FROM c;" "MOVE 1 FROM c;" \
  "FETCH NEXT FROM c;" "FETCH PRIOR FROM c;" "CLOSE c;" "COMMIT;"
check "FETCH_COUNT" "50005000" bash -c "psql -X -q -A -t -v FETCH_COUNT=700 -c 'SELECT v FROM generate_series(1, 10000) AS g(v)' | awk '{ sum += \$1 } END { print sum }'"
copied=$'id,item,price,day,paid\n1,tea,2.50,2026-01-10,t\n2,"o\'pie, ""warm""",12.99,2026-02-10,f\n3,Grüße ☕,1000.01,,\n4,,,2026-02-12,t'
columns="SELECT id, item, price, day, paid FROM sales WHERE _site = 'salem-01' ORDER BY id"
check "copy" "$copied" quietly -c "COPY ($columns) TO STDOUT (FORMAT csv, HEADER)"
check "copy, older form" "$copied" quietly -c "COPY ($columns) TO STDOUT CSV HEADER"
check "\\copy, older form" "$copied" quietly -c "\\copy ($columns) to stdout csv header"
check "\\copy binary" "5047434f50590aff0d0a00" bash -c "psql -X -q -c \"\\\\copy ($columns) to stdout binary\" | head -c 11 | xxd -p"
check "\\crosstabview" $'1|5|5\n2|7|7\n3|2|2' \
  quietly <<<"SELECT id, _site, qty FROM sales WHERE qty > 0 ORDER BY 1, 2 \\crosstabview"
check "csv" $'id,item\n2,"o\'pie, ""warm"""' quietly --csv --pset=tuples_only=off -c "SELECT id, item FROM sales WHERE id = 2 AND _site = 'salem-01'"
check "\\gdesc" $'id|bigint\nprice|numeric(10,2)\nday|date' quietly <<<"SELECT id, price, day FROM sales \\gdesc"
check "set_config" $'till\ntill' quietly -c "SELECT set_config('application_name', 'till', false)" -c "SHOW application_name"
check "search_path" $'public' quietly -c "SELECT set_config('search_path', 'public', false)"
check "time zone" "2026-01-10 10:00:00-08" quietly -c "SET TIME ZONE 'America/Los_Angeles'" -c "SELECT sold_at FROM sales WHERE id = 1 AND _site = 'salem-01'"
check "PGTZ" "2026-01-10 10:00:00-08" \
  env PGTZ=America/Los_Angeles psql -X -q -A -t -c "SELECT sold_at FROM sales WHERE id = 1 AND _site = 'salem-01'"
long="SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v) WHERE (a.v + b.v) % 7 = 3"
says "statement_timeout" '^ERROR:  57014.*\n1\n' after "\\set ON_ERROR_STOP 0" "\\set VERBOSITY sqlstate" "SET statement_timeout = '500ms';" "$long;" "SELECT 1;"
says "cancel" 'ERROR:  57014' bash -c "timeout --signal=INT 2 psql -X -v VERBOSITY=sqlstate -c '$long' 2>&1"
for command in '\d' '\dt' '\dt+' '\dv' '\dn' '\dn+' '\du' '\dp' '\df' '\df+' '\di' '\l' '\l+' '\dT' '\dx' '\ds' '\dS sales' '\d sales' '\d+ sales' '\d sites' '\db' '\dD' '\dC' '\do' \
  '\dF' '\des' '\dew' '\dRp' '\ddp' '\drds' '\dconfig' '\conninfo' '\encoding' '\sf array_length' '\dti' '\dm' '\dL' '\dy' '\dO' '\dA' '\dg'; do
  got=$(psql -X -c "$command" 2>&1)
  # A name that is not there is an answer; an error is none.
  if [[ $? == 0 || "$got" == *"does not exist"* || "$got" == *"more than one function"* || "$got" == *"functions are built in"* ]]; then echo "ok $command"; else failed=1; echo "FAIL $command: ${got//$'\n'/ | }"; fi
done
says "\\d shows columns" 'id +\| bigint[^\n]*\n(.*\n)* *price +\| numeric\(10,2\)' psql -X -c '\d public.sales'
says "\\d shows the key" 'PRIMARY KEY' psql -X -c '\d public.sales'
says "\\dt shows tables" 'public \| sales' psql -X -c '\dt'
exit $failed
