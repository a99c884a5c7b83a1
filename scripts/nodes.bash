# For the scripts beside it: nodes of HQ on this machine, over a Ceph of their own or each on a directory. Sourced, not run.
#
# Node N listens at ports 750N (sites), 758N (API) and 753N (PostgreSQL), and writes to $work/node-N.log.

# For figures: cargo build --release -p rollcall --features jemalloc
rollcall=${ROLLCALL:-rollcall}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d) ; echo "everything is in $work" >&2
# Many systems let a process open so many files and no more.
ulimit -n 20000
declare -A node fleet
has_ceph=

finish() {
  local pid
  for pid in "${fleet[@]}" "${node[@]}"; do kill -CONT "$pid" 2>/dev/null || true; kill "$pid" 2>/dev/null || true; done
  [ -z "$has_ceph" ] || "$here/ceph-on-loopback" stop "$work/ceph"
}
trap finish EXIT

say() { echo "$(date -u +%T) $*" >&2; }

start_ceph() { # nodes that start afterwards have their lake on it
  has_ceph=yes
  "$here/ceph-on-loopback" start "$work/ceph" > "$work/env" 2> "$work/ceph.log"
  . "$work/env"
}

start() { # number, then whatever `rollcall hq` takes besides; waits until the node answers
  local number=$1 store=()
  shift
  mkdir -p "$work/node-$number"
  if [ -n "$has_ceph" ]; then
    store=(--store s3://rollcall/lake)
    [ "$number" = 1 ] || cp "$work/node-1/node.key" "$work/node-$number/"
  fi
  "$rollcall" hq --data "$work/node-$number" "${store[@]}" --listen-sites 127.0.0.1:750"$number" \
    --listen-http 127.0.0.1:758"$number" --listen-pg 127.0.0.1:753"$number" "$@" >> "$work/node-$number.log" 2>&1 &
  node[$number]=$!
  for _ in $(seq 240); do curl -sf -o /dev/null "http://127.0.0.1:758$number/live" && return; sleep 0.5; done
  echo "node $number did not start: $work/node-$number.log" >&2; exit 3
}

kill_node() { # number; at once, as when a machine loses power
  kill -9 "${node[$1]}"; wait "${node[$1]}" 2>/dev/null || true
}

connected() { # how many sites a node has
  ss -tnH state established "( sport = :750$1 )" | wc -l
}

resident() { # KiB of a node
  awk '/VmRSS/ {print $2}' "/proc/${node[$1]}/status"
}

processor() { # seconds of processor time of a process, by its pid
  awk -v ticks="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) / ticks}' "/proc/$1/stat"
}

count_rows() { # node; how many sites sent rows, how many rows, and how many sites have a row too many or too few
  local by_site="SELECT count(*) AS rows, count(DISTINCT _seq) AS seqs, max(_seq) AS last, _site FROM history.sales GROUP BY _site"
  # 1: the fleet is gone, so coverage says.
  "$rollcall" sql --data "$work/node-$1" --format csv "SELECT count(*) AS sites, sum(rows) AS rows,
    sum(CASE WHEN rows = seqs AND rows = last THEN 0 ELSE 1 END) AS wrong FROM ($by_site) AS s" || [ $? -eq 1 ]
}
