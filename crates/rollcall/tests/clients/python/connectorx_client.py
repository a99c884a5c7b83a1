"""connectorx: reads whole tables by binary COPY, by rows (cursor) or by simple questions, in several parts at once."""
import connectorx

from bulk import *

checks = Checks()
PROTOCOLS = [(protocol, protocol) for protocol in ("binary", "csv", "cursor", "simple")]


def read(query, protocol="binary", **more):
    return connectorx.read_sql(uri(sslmode="require"), query, return_type="arrow", protocol=protocol, **more)


@checks.each("select", PROTOCOLS)
def _(protocol):
    for row, expected in zip(rows_of(read(PLAIN, protocol)), PLAIN_EXPECTED, strict=True):
        same(row, expected)


@checks.each("decimals, times and bytes", PROTOCOLS)
def _(protocol):
    sql = "SELECT id, price, sold_at, receipt FROM sales WHERE _site = 'salem-01' AND id <> 2 ORDER BY id"
    for row, expected in zip(rows_of(read(sql, protocol)), [SALES_EXPECTED[index] for index in (0, 2, 3)], strict=True):
        same([row[0], row[1] if row[1] is None else round(float(row[1]), 2), row[2], row[3]],
             [expected[0], expected[3] if expected[3] is None else float(expected[3]), expected[7], expected[8]])


@checks.each("a million rows", PROTOCOLS[:1] + PROTOCOLS[2:3])
def _(protocol):
    table = read(MILLION, protocol)
    same([sum(table.column(name).to_pylist()) for name in ("a", "b")], MILLION_SUMS)


@checks("in parts")
def _():
    table = read("SELECT id, qty FROM sales", partition_on="id", partition_num=2)
    same(sorted(table.column("id").to_pylist()), [1, 1, 2, 2, 3, 3, 4, 4])


@checks("several questions")
def _():
    table = read([f"SELECT id FROM sales WHERE _site = '{site}'" for site in SITES])
    same(sorted(table.column("id").to_pylist()), [1, 1, 2, 2, 3, 3, 4, 4])


@checks("limit")
def _():
    same(read("SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id LIMIT 2").column("id").to_pylist(), [1, 2])


@checks("no rows")
def _():
    table = read("SELECT id, item FROM sales WHERE _site = 'nowhere'")
    assert table.num_rows == 0 and table.column_names == ["id", "item"], table


@checks("strict by options", only_hq=True)
def _():
    strict = uri(sslmode="require", options="-c rollcall.coverage=strict")
    error = refused(lambda: connectorx.read_sql(strict, "SELECT id FROM sales", return_type="arrow"))
    assert "tacoma-01" in str(error), error


checks.run()
