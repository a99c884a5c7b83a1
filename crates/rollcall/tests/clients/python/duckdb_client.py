"""DuckDB attaches HQ as a database: it reads the catalogue, then tables by binary COPY within a transaction."""
import os

import duckdb
import duckdb_extension_postgres_scanner as extension

from bulk import *

checks = Checks()


def attached(more=""):
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    walked = os.walk(os.path.dirname(extension.__file__))
    [path] = [os.path.join(folder, file) for folder, _, files in walked for file in files if file == "postgres_scanner.duckdb_extension"]
    connection.execute(f"LOAD '{path}'")
    connection.execute("SET TimeZone = 'UTC'")
    # The rest comes from the environment, as everywhere with libpq.
    connection.execute(f"ATTACH '{more}' AS hq (TYPE postgres, READ_ONLY)")
    return connection


def ask(connection, sql):
    return [[utc(value) for value in row] for row in connection.execute(sql).fetchall()]


@checks("select")
def _():
    for row, expected in zip(ask(attached(), SALES.replace("FROM sales", "FROM hq.sales")), SALES_EXPECTED, strict=True):
        same(row, expected)


@checks("tables")
def _():
    names = {row[0] for row in ask(attached(), "SELECT table_name FROM duckdb_tables() WHERE database_name = 'hq'")}
    assert {"sales", "sites"} <= names, names


@checks("conditions, columns and groups")
def _():
    connection = attached()
    same(ask(connection, "SELECT count(*) FROM hq.sales WHERE id IN (1, 3) AND _site = 'salem-01'")[0], [2])
    same(ask(connection, "SELECT s.state, sum(x.price) FROM hq.sales x JOIN hq.sites s ON s.id = x._site GROUP BY 1 ORDER BY 1"),
         [["OR", Decimal("1015.50")], ["WA", Decimal("1015.50")]])


@checks("postgres_query")
def _():
    same(ask(attached(), "SELECT * FROM postgres_query('hq', 'SELECT count(*) AS n FROM sales')")[0], [8])


@checks("every type")
def _():
    doubled = TYPES.replace("'", "''")
    [row] = ask(attached(), f"SELECT * FROM postgres_query('hq', '{doubled}')")
    same(row, TYPES_EXPECTED)


@checks("a million rows")
def _():
    same([int(value) for value in ask(attached(), f"SELECT sum(a), sum(b) FROM postgres_query('hq', '{MILLION}')")[0]], MILLION_SUMS)


@checks("text in place of binary")
def _():
    connection = attached()
    connection.execute("SET pg_use_binary_copy = false")
    same(ask(connection, "SELECT count(*), sum(qty) FROM hq.sales")[0], [8, 28])


@checks("filters at HQ")
def _():
    connection = attached()
    connection.execute("SET pg_experimental_filter_pushdown = true")
    same(ask(connection, "SELECT id FROM hq.sales WHERE _site = 'salem-01' AND day >= DATE '2026-02-01' ORDER BY id"), [[2], [4]])


@checks("strict by options", only_hq=True)
def _():
    connection = attached("options=-crollcall.coverage=strict")
    error = refused(lambda: ask(connection, "SELECT count(*) FROM hq.sales"), duckdb.Error)
    assert "tacoma-01" in str(error), error


checks.run()
