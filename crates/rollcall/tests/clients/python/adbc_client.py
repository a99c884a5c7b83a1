"""ADBC: describes a question, then reads it by binary COPY into Arrow."""
import time

import adbc_driver_postgresql.dbapi as adbc
from adbc_driver_manager import Error

from bulk import *

checks = Checks()


def connect(**more):
    return adbc.connect(uri(sslmode="require", **more), autocommit=True)


def ask(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [[utc(value) for value in row] for row in cursor.fetchall()] if cursor.description else None


@checks("select every type")
def _():
    with connect() as connection:
        [row] = ask(connection, TYPES)
        # The library has numeric as text, since it has no limit of digits.
        row[3] = Decimal(row[3])
        same(row, TYPES_EXPECTED)
        for row, expected in zip(ask(connection, SALES), SALES_EXPECTED, strict=True):
            row[3] = row[3] and Decimal(row[3])
            same(row, expected)


@checks.each("parameter", [case for case in PARAMETERS if not isinstance(case[2], (list, Decimal))])
def _(condition, value, expected):
    with connect() as connection:
        same(ask(connection, f"SELECT count(*) FROM sales WHERE {condition}".replace("?", "$1"), (value,))[0], [expected])


@checks("limit and offset")
def _():
    with connect() as connection:
        same([row[0] for row in ask(connection, PAGE.replace("?", "$1", 1).replace("?", "$2"), (2, 1))], [2, 3])


@checks("two columns of one name")
def _():
    with connect() as connection:
        same(ask(connection, SAME_NAME)[0], [1, 1, 5])


@checks("fetched as Arrow")
def _():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(PLAIN)
        for row, expected in zip(rows_of(cursor.fetch_arrow_table()), PLAIN_EXPECTED, strict=True):
            same(row, expected)


@checks("a million rows")
def _():
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(MILLION)
        table = cursor.fetch_arrow_table()
        same([sum(table.column(name).to_pylist()) for name in ("a", "b")], MILLION_SUMS)


@checks("without COPY")
def _():
    with connect() as connection, connection.cursor(adbc_stmt_kwargs={"adbc.postgresql.use_copy": "false"}) as cursor:
        cursor.execute(PLAIN)
        same(list(cursor.fetchall()[0]), PLAIN_EXPECTED[0])


@checks("strict", only_hq=True)
def _():
    with connect() as connection:
        ask(connection, "SET rollcall.coverage = 'strict'")
        error = refused(lambda: ask(connection, INCOMPLETE), Error)
        assert error.sqlstate == "RC001" and "tacoma-01" in str(error), (error.sqlstate, error)
        same(ask(connection, "SELECT 1::int")[0], [1])


@checks("strict by options", only_hq=True)
def _():
    with connect(options="-c rollcall.coverage=strict") as connection:
        same(refused(lambda: ask(connection, INCOMPLETE), Error).sqlstate, "RC001")


@checks.each("reset", [(sql, sql) for sql in ("DISCARD ALL", "RESET ALL")])
def _(reset):
    with connect() as connection:
        for sql in ["SET rollcall.coverage = 'strict'", reset]:
            ask(connection, sql)
        same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks("transaction")
def _():
    with adbc.connect(uri(sslmode="require")) as connection:
        ask(connection, "SAVEPOINT a")
        same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
        ask(connection, "ROLLBACK TO SAVEPOINT a")
        refused(lambda: ask(connection, "SELECT * FROM nosuch"), Error)
        connection.rollback()
        same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
        connection.commit()


@checks("schema of a table")
def _():
    with connect() as connection:
        schema = connection.adbc_get_table_schema("sales")
        assert {"id": "int64", "item": "string", "day": "date32[day]"}.items() <= {field.name: str(field.type) for field in schema}.items(), schema


@checks("objects")
def _():
    with connect() as connection:
        [catalog] = connection.adbc_get_objects(depth="columns", catalog_filter=os.environ["PGDATABASE"], table_name_filter="sales").read_all().to_pylist()
        [schema] = [schema for schema in catalog["catalog_db_schemas"] if schema["db_schema_name"] == "public"]
        [table] = schema["db_schema_tables"]
        assert {"id", "price", "_site"} <= {column["column_name"] for column in table["table_columns"]}, table


@checks("cancel")
def _():
    with connect() as connection, connection.cursor() as cursor:
        in_a_moment(cursor.adbc_cancel)
        started = time.time()
        refused(lambda: (cursor.execute(LONG), cursor.fetchall()), Error)
        assert time.time() - started < 20, time.time() - started
        same(ask(connection, "SELECT 1::int")[0], [1])


checks.run()
