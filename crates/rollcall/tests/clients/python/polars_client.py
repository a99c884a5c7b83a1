"""polars: read_database_uri through connectorx and ADBC, read_database over a connection of another client."""
import polars
import sqlalchemy

from bulk import *

checks = Checks()
ENGINES = [(engine, engine) for engine in ("connectorx", "adbc")]


@checks.each("read_database_uri", ENGINES)
def _(engine):
    frame = polars.read_database_uri(PLAIN, uri(sslmode="require"), engine=engine)
    for row, expected in zip(frame.rows(), PLAIN_EXPECTED, strict=True):
        same(list(row), expected)


@checks.each("decimals, times and bytes", ENGINES)
def _(engine):
    sql = "SELECT price, sold_at, receipt FROM sales WHERE _site = 'salem-01' AND id = 1"
    row = polars.read_database_uri(sql, uri(sslmode="require"), engine=engine).row(0)
    same([float(row[0]), utc(row[1]), row[2]], [2.5, SALES_EXPECTED[0][7], SALES_EXPECTED[0][8]])


@checks.each("groups", ENGINES)
def _(engine):
    sql = "SELECT _site, count(*) AS sales, sum(rebate) AS rebate FROM sales GROUP BY _site ORDER BY _site"
    frame = polars.read_database_uri(sql, uri(sslmode="require"), engine=engine)
    same(list(frame.row(0)), ["salem-01", 4, -1.25])


@checks("in parts")
def _():
    frame = polars.read_database_uri("SELECT id, qty FROM sales", uri(sslmode="require"), partition_on="id", partition_num=3)
    same(sorted(frame["id"].to_list()), [1, 1, 2, 2, 3, 3, 4, 4])


@checks.each("a million rows", ENGINES)
def _(engine):
    frame = polars.read_database_uri(MILLION, uri(sslmode="require"), engine=engine)
    same([frame[name].cast(polars.Int64).sum() for name in ("a", "b")], MILLION_SUMS)


@checks("read_database through SQLAlchemy")
def _():
    engine = sqlalchemy.create_engine(uri(sslmode="require").replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        frame = polars.read_database(SALES, connection)
        same(frame["price"].to_list()[:2], [Decimal("2.50"), Decimal("12.99")])
        parts = polars.read_database(MANY, connection, iter_batches=True, batch_size=1000)
        same(sum(part["v"].sum() for part in parts), MANY_SUM)


@checks.each("strict by options", ENGINES, only_hq=True)
def _(engine):
    strict = uri(sslmode="require", options="-c rollcall.coverage=strict")
    error = refused(lambda: polars.read_database_uri("SELECT id FROM sales", strict, engine=engine))
    assert "tacoma-01" in str(error), error


checks.run()
