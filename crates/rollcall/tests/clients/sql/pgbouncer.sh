#!/usr/bin/env bash
# pgbouncer in front: one connection to HQ for many clients, reset between them. BOUNCER_USER is whom it runs as, DIRECTORY its own.
set -uo pipefail
PATH=$PATH:/usr/sbin
failed=0
at_hq() { [[ "${AGAINST:-hq}" == hq ]]; }
DIRECTORY=${DIRECTORY:-$(mktemp -d)}
BOUNCER_PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$DIRECTORY/bouncer.ini" <<CONFIG
[databases]
session = host=$PGHOST port=$PGPORT dbname=$PGDATABASE user=$PGUSER password=$PGPASSWORD pool_mode=session pool_size=1
transaction = host=$PGHOST port=$PGPORT dbname=$PGDATABASE user=$PGUSER password=$PGPASSWORD pool_mode=transaction pool_size=1
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $BOUNCER_PORT
unix_socket_dir =
auth_type = any
server_tls_sslmode = require
server_reset_query = DISCARD ALL
server_reset_query_always = 1
ignore_startup_parameters = extra_float_digits,options
logfile = $DIRECTORY/bouncer.log
CONFIG
run_as=()
if [[ $(id -u) == 0 ]]; then
  chown -R nobody "$DIRECTORY"
  run_as=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
"${run_as[@]}" pgbouncer "$DIRECTORY/bouncer.ini" >"$DIRECTORY/bouncer.out" 2>&1 &
bouncer=$!
trap 'kill $bouncer 2>/dev/null' EXIT
through() {
  local database=$1
  shift
  PGHOST=127.0.0.1 PGPORT=$BOUNCER_PORT PGSSLMODE=disable PGDATABASE=$database PGOPTIONS='' psql -X -q -A -t -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$@" 2>&1
}
for _ in $(seq 50); do through session -c "SELECT 1" >/dev/null && break; sleep 0.1; done
check() {
  local name=$1 expected=$2 got
  shift 2
  got=$(through "$@" | grep -vE '^(WARNING|NOTICE|HINT): ')
  if [[ "$got" == "$expected" ]]; then echo "ok $name"; else failed=1; echo "FAIL $name: ${got//$'\n'/ | }; $(tail -n 1 "$DIRECTORY/bouncer.log")"; fi
}
for mode in session transaction; do
  check "$mode: select" "8" $mode -c "SELECT count(*) FROM sales"
  check "$mode: one connection to the server" "$(through $mode -c 'SELECT pg_backend_pid()' | tail -n 1)" $mode -c "SELECT pg_backend_pid()"
  if at_hq; then
    check "$mode: strict" "ERROR:  RC001" $mode -c "BEGIN; SET LOCAL rollcall.coverage = 'strict'" -c "SELECT count(*) FROM sales"
  fi
  through $mode -c "SET rollcall.coverage = 'strict'; SET statement_timeout = 54321" >/dev/null
  check "$mode: nothing is left for the next" $'0\n8' $mode -c "SHOW statement_timeout" -c "SELECT count(*) FROM sales"
  through $mode -c "SET rollcall.coverage = 'off-for-this-statement'" >/dev/null
  if at_hq; then
    got=$(through $mode -v VERBOSITY=default -c "SELECT count(*) FROM sales")
    if [[ "$got" == *"tacoma-01"* ]]; then echo "ok $mode: the next is told"; else failed=1; echo "FAIL $mode: the next is told: $got"; fi
  fi
  check "$mode: transaction" $'1\nERROR:  42P01\n8' $mode -v ON_ERROR_STOP=0 < <(printf '%s\n' "BEGIN;" "SELECT 1;" "SAVEPOINT a;" "SELECT * FROM nosuch;" \
    "ROLLBACK TO a;" "SELECT count(*) FROM sales;" "COMMIT;")
  check "$mode: cursor" $'1\n2' $mode -c "BEGIN; DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id" -c "FETCH 2 FROM c" -c "COMMIT"
  # A client that goes away within a transaction leaves nothing behind.
  through $mode -c "BEGIN; SET LOCAL rollcall.coverage = 'strict'; SELECT 1" >/dev/null
  check "$mode: after a transaction left open" "8" $mode -c "SELECT count(*) FROM sales"
  long="SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v) WHERE (a.v + b.v) % 7 = 3"
  check "$mode: statement_timeout" $'ERROR:  57014\n1' $mode -v ON_ERROR_STOP=0 < <(printf '%s\n' "BEGIN;" "SET LOCAL statement_timeout = 2000;" "$long;" "ROLLBACK;" "SELECT 1;")
done
exit $failed
