"""pg8000: unnamed and named prepared statements, parameters and values as text."""
import os
import ssl
import time

import pg8000.dbapi
import pg8000.native

from checks import *

checks = Checks()


def arguments(**more):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return dict(user=os.environ["PGUSER"], password=os.environ["PGPASSWORD"], host=os.environ["PGHOST"],
                port=int(os.environ["PGPORT"]), database=os.environ["PGDATABASE"], ssl_context=context, **more)


def connect(**more):
    connection = pg8000.dbapi.connect(**arguments(**more))
    connection.autocommit = True
    return connection


def ask(connection, sql, parameters=()):
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    return cursor.fetchall() if cursor.description else None


def code(error):
    return error.args[0]["C"]


@checks("select every type")
def _():
    connection = connect()
    same(ask(connection, TYPES)[0], TYPES_EXPECTED)
    for row, expected in zip(ask(connection, SALES), SALES_EXPECTED, strict=True):
        same(row, expected)


@checks.each("parameter", PARAMETERS)
def _(condition, value, expected):
    sql = f"SELECT count(*) FROM sales WHERE {condition}".replace("?", "%s")
    same(ask(connect(), sql, (value,))[0], [expected])


@checks.each("parameter of the native interface", PARAMETERS)
def _(condition, value, expected):
    connection = pg8000.native.Connection(**arguments())
    same(connection.run(f"SELECT count(*) FROM sales WHERE {condition}".replace("?", ":v"), v=value)[0], [expected])
    connection.close()


@checks("prepared and asked again")
def _():
    statement = pg8000.native.Connection(**arguments()).prepare("SELECT count(*) FROM sales WHERE qty = :v")
    same([statement.run(v=quantity)[0][0] for quantity in (7, 2, 8)], [2, 2, 0])
    statement.close()


@checks("limit and offset")
def _():
    same([row[0] for row in ask(connect(), PAGE.replace("?", "%s"), (2, 1))], [2, 3])


@checks("two columns of one name")
def _():
    same(ask(connect(), SAME_NAME)[0], [1, 1, 5])


@checks("note", only_hq=True)
def _():
    connection = connect()
    ask(connection, INCOMPLETE)
    notes = list(connection.notices)
    assert notes and notes[-1][b"S"] == b"WARNING" and b"tacoma-01" in notes[-1][b"M"], notes


@checks("strict", only_hq=True)
def _():
    connection = connect()
    ask(connection, "SET rollcall.coverage = 'strict'")
    error = refused(lambda: ask(connection, INCOMPLETE), pg8000.dbapi.Error)
    assert code(error) == "RC001" and "tacoma-01" in str(error), error
    same(ask(connection, "SELECT 1")[0], [1])


@checks("strict by start parameters", only_hq=True)
def _():
    connection = connect(startup_params={"rollcall.coverage": "strict"})
    same(code(refused(lambda: ask(connection, INCOMPLETE), pg8000.dbapi.Error)), "RC001")


@checks.each("reset", [(sql, sql) for sql in ("DISCARD ALL", "RESET ALL")])
def _(reset):
    connection = connect()
    for sql in ["SET statement_timeout = 54321", "SET rollcall.coverage = 'strict'", reset]:
        ask(connection, sql)
    same(ask(connection, "SHOW statement_timeout")[0], ["0"])
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks("savepoint")
def _():
    connection = connect()
    connection.autocommit = False
    ask(connection, "SELECT 1")
    ask(connection, "SAVEPOINT a")
    same(code(refused(lambda: ask(connection, "SELECT * FROM nosuch"), pg8000.dbapi.Error)), "42P01")
    ask(connection, "ROLLBACK TO a")
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
    connection.commit()


@checks("declare, fetch, close")
def _():
    connection = connect()
    connection.autocommit = False
    ask(connection, "DECLARE c CURSOR FOR SELECT id FROM sales WHERE _site = %s ORDER BY id", ("salem-01",))
    same([row[0] for row in ask(connection, "FETCH 3 FROM c")], [1, 2, 3])
    same([row[0] for row in ask(connection, "FETCH ALL FROM c")], [4])
    ask(connection, "CLOSE c")
    connection.rollback()


@checks.each("copy", [("text", COPY, COPY_TEXT), ("csv", f"{COPY} WITH (FORMAT CSV, HEADER)", COPY_CSV), ("older form", f"{COPY} CSV HEADER", COPY_CSV)])
def _(sql, expected):
    import io
    out = io.BytesIO()
    connect().cursor().execute(sql, stream=out)
    same(out.getvalue().decode(), expected)


@checks("statement_timeout")
def _():
    connection = connect()
    ask(connection, "SET statement_timeout TO 2000")
    same(code(refused(lambda: ask(connection, LONG), pg8000.dbapi.Error)), "57014")
    same(ask(connection, "SELECT 1")[0], [1])


@checks("cancel by another connection")
def _():
    # pg8000 has no means of its own to cancel; a person uses this function.
    connection = connect()
    process = ask(connection, "SELECT pg_backend_pid()")[0][0]
    other = connect()
    in_a_moment(lambda: ask(other, "SELECT pg_cancel_backend(%s)", (process,)))
    started = time.time()
    same(code(refused(lambda: ask(connection, LONG), pg8000.dbapi.Error)), "57014")
    assert time.time() - started < 20, time.time() - started
    same(ask(connection, "SELECT 1")[0], [1])


@checks("set_config")
def _():
    connection = connect()
    same(ask(connection, "SELECT set_config(%s, %s, false)", ("application_name", "till"))[0], ["till"])
    same(ask(connection, "SHOW application_name")[0], ["till"])


checks.run()
