"""psqlODBC by pyodbc: the driver of Excel, Power BI and Access; it works with cursors, savepoints and many settings."""
import os
import time

import pyodbc

from checks import *

checks = Checks()
pyodbc.pooling = False
CONDITIONS = [case for case in PARAMETERS if not isinstance(case[2], list)]


def connect(autocommit=True, **more):
    settings = {
        "DRIVER": "{PostgreSQL Unicode}", "SERVER": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "DATABASE": os.environ["PGDATABASE"],
        "UID": os.environ["PGUSER"], "PWD": os.environ["PGPASSWORD"], "SSLMODE": "require", "BoolsAsChar": "0", "ByteaAsLongVarBinary": "1", **more,
    }
    return pyodbc.connect(";".join(f"{name}={value}" for name, value in settings.items()), autocommit=autocommit)


def ask(connection, sql, *parameters):
    cursor = connection.cursor()
    cursor.execute(sql, *parameters)
    return [list(row) for row in cursor.fetchall()] if cursor.description else None


# ODBC's times have no zone: the driver gives the session's, which is UTC here.
def plain(row):
    return [value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value for value in row]


@checks("select every type")
def _():
    connection = connect()
    same(ask(connection, TYPES)[0], plain(TYPES_EXPECTED))
    for row, expected in zip(ask(connection, SALES), SALES_EXPECTED, strict=True):
        same(row, plain(expected))


@checks.each("parameter, prepared by the server", CONDITIONS)
def _(condition, value, expected):
    same(ask(connect(UseServerSidePrepare="1"), f"SELECT count(*) FROM sales WHERE {condition}", value)[0], [expected])


@checks.each("parameter, put in by the driver", CONDITIONS)
def _(condition, value, expected):
    same(ask(connect(UseServerSidePrepare="0"), f"SELECT count(*) FROM sales WHERE {condition}", value)[0], [expected])


@checks("limit and offset")
def _():
    same([row[0] for row in ask(connect(), PAGE, 2, 1)], [2, 3])


@checks("two columns of one name")
def _():
    same(ask(connect(), SAME_NAME)[0], [1, 1, 5])


@checks("note", only_hq=True)
def _():
    cursor = connect().cursor()
    cursor.execute(INCOMPLETE)
    notes = str(cursor.messages)
    assert "tacoma-01" in notes, notes


@checks("strict", only_hq=True)
def _():
    connection = connect()
    ask(connection, "SET rollcall.coverage = 'strict'")
    error = refused(lambda: ask(connection, INCOMPLETE), pyodbc.Error)
    assert error.args[0] == "RC001" and "tacoma-01" in error.args[1], error.args
    same(ask(connection, "SELECT 1")[0], [1])


@checks("strict by settings of the connection", only_hq=True)
def _():
    connection = connect(ConnSettings="SET rollcall.coverage = strict")
    same(refused(lambda: ask(connection, INCOMPLETE), pyodbc.Error).args[0], "RC001")


@checks.each("reset", [(sql, sql) for sql in ("DISCARD ALL", "RESET ALL")])
def _(reset):
    connection = connect()
    for sql in ["SET statement_timeout = 54321", "SET rollcall.coverage = 'strict'", reset]:
        ask(connection, sql)
    same(ask(connection, "SHOW statement_timeout")[0], ["0"])
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks.each("an error within a transaction", [("statement undone", "7.4-2"), ("transaction undone", "7.4-1")])
def _(protocol):
    connection = connect(autocommit=False, Protocol=protocol)
    ask(connection, "SELECT 1")
    refused(lambda: ask(connection, "SELECT * FROM nosuch"), pyodbc.Error)
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
    connection.commit()


@checks("savepoint")
def _():
    connection = connect(autocommit=False)
    ask(connection, "SELECT 1")
    ask(connection, "SAVEPOINT a")
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
    ask(connection, "ROLLBACK TO a")
    connection.rollback()


@checks.each("UseDeclareFetch", [("in a transaction", False), ("by itself", True)])
def _(autocommit):
    connection = connect(autocommit=autocommit, UseDeclareFetch="1", Fetch="100")
    same(sum(row[0] for row in ask(connection, MANY)), MANY_SUM)
    for row, expected in zip(ask(connection, SALES), SALES_EXPECTED, strict=True):
        same(row, plain(expected))
    same([row[0] for row in ask(connection, "SELECT id FROM sales WHERE _site = ? ORDER BY id", "salem-01")], [1, 2, 3, 4])


@checks("tables")
def _():
    names = {row.table_name for row in connect().cursor().tables(schema="public")}
    assert {"sales", "sites"} <= names, names


@checks("columns")
def _():
    columns = {row.column_name: row.type_name for row in connect().cursor().columns(table="sales", schema="public")}
    wanted = {"id": "int8", "item": "text", "price": "numeric", "rebate": "float8", "paid": "bool", "day": "date", "sold_at": "timestamptz", "receipt": "bytea"}
    assert wanted.items() <= columns.items(), columns


@checks("primary key")
def _():
    names = {row.column_name for row in connect().cursor().primaryKeys(table="sales", schema="public")}
    assert {"_site", "id"} <= names, names


@checks("types and indexes")
def _():
    cursor = connect().cursor()
    assert cursor.getTypeInfo().fetchall()
    cursor.statistics("sales").fetchall()
    cursor.foreignKeys("sales").fetchall()


@checks("cancel")
def _():
    cursor = connect().cursor()
    in_a_moment(cursor.cancel)
    started = time.time()
    error = refused(lambda: cursor.execute(LONG).fetchall(), pyodbc.Error)
    assert error.args[0] in ("57014", "HY008"), error.args
    assert time.time() - started < 20, time.time() - started
    same(list(cursor.execute("SELECT 1").fetchone()), [1])


@checks("statement_timeout")
def _():
    connection = connect()
    ask(connection, "SET statement_timeout = 2000")
    same(refused(lambda: ask(connection, LONG), pyodbc.Error).args[0], "57014")
    same(ask(connection, "SELECT 1")[0], [1])


@checks("set_config")
def _():
    connection = connect()
    same(ask(connection, "SELECT set_config('application_name', ?, false)", "till")[0], ["till"])
    same(ask(connection, "SHOW application_name")[0], ["till"])


checks.run()
