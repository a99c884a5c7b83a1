"""psycopg2: every parameter is put into the text by the client."""
import time

import psycopg2
import psycopg2.errors
import psycopg2.extras
import psycopg2.pool

from checks import *

checks = Checks()


def connect(**more):
    connection = psycopg2.connect("", **more)
    connection.autocommit = True
    return connection


def ask(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else None


@checks("select every type")
def _():
    connection = connect()
    same(ask(connection, TYPES)[0], TYPES_EXPECTED)
    for row, expected in zip(ask(connection, SALES), SALES_EXPECTED, strict=True):
        same(row, expected)


@checks.each("parameter", PARAMETERS)
def _(condition, value, expected):
    # Percent signs are placeholders here.
    sql = f"SELECT count(*) FROM sales WHERE {condition}".replace("?", "%s")
    if isinstance(value, list) and None in value:
        sql = sql.replace("%s", "%s::text[]")
    same(ask(connect(), sql, (value,))[0], [expected])


@checks("limit and offset")
def _():
    same([row[0] for row in ask(connect(), PAGE.replace("?", "%s"), (2, 1))], [2, 3])


@checks("two columns of one name")
def _():
    same(ask(connect(), SAME_NAME)[0], [1, 1, 5])


@checks("note", only_hq=True)
def _():
    connection = connect()
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
    assert "WARNING" in connection.notices[-1] and "tacoma-01" in connection.notices[-1], connection.notices


@checks("strict", only_hq=True)
def _():
    connection = connect()
    ask(connection, "SET rollcall.coverage = 'strict'")
    error = refused(lambda: ask(connection, INCOMPLETE), psycopg2.Error)
    assert error.pgcode == "RC001" and "tacoma-01" in str(error), (error.pgcode, error)
    same(ask(connection, "SELECT 1")[0], [1])


@checks("strict by options", only_hq=True)
def _():
    connection = connect(options="-c rollcall.coverage=strict")
    same(refused(lambda: ask(connection, INCOMPLETE), psycopg2.Error).pgcode, "RC001")


@checks("pool reset")
def _():
    pool = psycopg2.pool.SimpleConnectionPool(1, 1, "")
    connection = pool.getconn()
    for sql in ["SET statement_timeout = 54321", "SET rollcall.coverage = 'strict'"]:
        ask(connection, sql)
    connection.commit()
    connection.reset()
    pool.putconn(connection)
    connection = pool.getconn()
    same(ask(connection, "SHOW statement_timeout")[0], ["0"])
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks.each("reset", [(sql, sql) for sql in ("DISCARD ALL", "RESET ALL")])
def _(reset):
    connection = connect()
    for sql in ["SET statement_timeout = 54321", "SET rollcall.coverage = 'strict'", reset]:
        ask(connection, sql)
    same(ask(connection, "SHOW statement_timeout")[0], ["0"])
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks("set rolled back")
def _():
    connection = connect()
    connection.autocommit = False
    for sql in ["SET statement_timeout = 54321", "SET rollcall.coverage = 'strict'"]:
        ask(connection, sql)
    connection.rollback()
    same(ask(connection, "SHOW statement_timeout")[0], ["0"])
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])


@checks("savepoint")
def _():
    connection = connect()
    connection.autocommit = False
    ask(connection, "SELECT 1")
    ask(connection, "SAVEPOINT a")
    refused(lambda: ask(connection, "SELECT * FROM nosuch"), psycopg2.errors.UndefinedTable)
    refused(lambda: ask(connection, "SELECT 1"), psycopg2.errors.InFailedSqlTransaction)
    ask(connection, "ROLLBACK TO SAVEPOINT a")
    same(ask(connection, INCOMPLETE)[0], [INCOMPLETE_EXPECTED])
    ask(connection, "RELEASE SAVEPOINT a")
    connection.commit()


@checks("named cursor")
def _():
    connection = connect()
    connection.autocommit = False
    with connection.cursor("many") as cursor:
        cursor.itersize = 1000
        cursor.execute(MANY)
        same(sum(row[0] for row in cursor), MANY_SUM)
    with connection.cursor("some", scrollable=False) as cursor:
        cursor.execute(SALES)
        same(cursor.fetchone(), SALES_EXPECTED[0])
        same([row[0] for row in cursor.fetchmany(2)], [2, 3])
        same([row[0] for row in cursor.fetchall()], [4])
    connection.commit()


@checks("declare, fetch, close")
def _():
    connection = connect()
    connection.autocommit = False
    ask(connection, f"DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR {SALES}")
    same([row[0] for row in ask(connection, "FETCH FORWARD 3 FROM c")], [1, 2, 3])
    same([row[0] for row in ask(connection, "FETCH ALL IN c")], [4])
    same(ask(connection, "FETCH NEXT FROM c"), [])
    ask(connection, "CLOSE c")
    error = refused(lambda: ask(connection, "FETCH NEXT FROM c"), psycopg2.Error)
    same(error.pgcode, "34000")
    connection.rollback()


@checks.each("copy", [
    ("text", COPY, COPY_TEXT), ("csv", f"{COPY} WITH (FORMAT csv, HEADER)", COPY_CSV), ("older form", f"{COPY} CSV HEADER", COPY_CSV),
    ("older form with its words", f"{COPY} WITH CSV HEADER DELIMITER ',' NULL ''", COPY_CSV),
])
def _(sql, expected):
    import io
    out = io.StringIO()
    with connect().cursor() as cursor:
        cursor.copy_expert(sql, out)
    same(out.getvalue(), expected)


@checks("cancel")
def _():
    connection = connect()
    in_a_moment(connection.cancel)
    started = time.time()
    refused(lambda: ask(connection, LONG), psycopg2.errors.QueryCanceled)
    assert time.time() - started < 20, time.time() - started
    same(ask(connection, "SELECT 1")[0], [1])


@checks("statement_timeout")
def _():
    connection = connect()
    ask(connection, "SET statement_timeout = '500ms'")
    refused(lambda: ask(connection, LONG), psycopg2.errors.QueryCanceled)
    same(ask(connection, "SELECT 1")[0], [1])


@checks("set_config")
def _():
    connection = connect()
    same(ask(connection, "SELECT set_config('application_name', 'till', false)")[0], ["till"])
    same(ask(connection, "SHOW application_name")[0], ["till"])
    same(ask(connection, "SELECT current_setting('application_name')")[0], ["till"])


@checks("dictionary rows")
def _():
    with connect().cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute("SELECT id, item FROM sales WHERE id = 1 AND _site = 'salem-01'")
        assert cursor.fetchall() == [{"id": 1, "item": "tea"}]


checks.run()
