"""psycopg 3: parameters go beside the question, as text or binary; statements are prepared after five uses."""
import time

import psycopg
import psycopg_pool

from checks import *

checks = Checks()


def connect(**more):
    return psycopg.connect("", autocommit=more.pop("autocommit", True), **more)


@checks.each("select every type", [("text", False), ("binary", True)])
def _(binary):
    with connect() as connection, connection.cursor(binary=binary) as cursor:
        same(cursor.execute(TYPES).fetchone(), TYPES_EXPECTED)
        for row, expected in zip(cursor.execute(SALES).fetchall(), SALES_EXPECTED, strict=True):
            same(row, expected)


def by_format(condition, value, expected, spelling):
    with connect() as connection, connection.cursor(binary=spelling == "%b") as cursor:
        cursor.execute(f"SELECT count(*) FROM sales WHERE {condition}".replace("?", spelling), (value,))
        same(cursor.fetchone(), [expected])


@checks.each("parameter as the client likes", PARAMETERS)
def _(condition, value, expected):
    by_format(condition, value, expected, "%s")


@checks.each("parameter as text", PARAMETERS)
def _(condition, value, expected):
    by_format(condition, value, expected, "%t")


@checks.each("parameter as binary", PARAMETERS)
def _(condition, value, expected):
    by_format(condition, value, expected, "%b")


@checks.each("parameter put in by the client", PARAMETERS)
def _(condition, value, expected):
    with connect() as connection, psycopg.ClientCursor(connection) as cursor:
        sql = f"SELECT count(*) FROM sales WHERE {condition}".replace("?", "%s")
        cursor.execute(sql.replace("%s", "%s::text[]") if isinstance(value, list) and None in value else sql, (value,))
        same(cursor.fetchone(), [expected])


@checks("prepared and asked again")
def _():
    with connect() as connection:
        for quantity, expected in [(7, 2), (2, 2), (8, 0)] * 4:
            row = connection.execute("SELECT count(*) FROM sales WHERE qty = %s", (quantity,), prepare=True).fetchone()
            same(row, [expected])


@checks("limit and offset")
def _():
    with connect() as connection:
        same([row[0] for row in connection.execute(PAGE.replace("?", "%s"), (2, 1)).fetchall()], [2, 3])


@checks("pipeline")
def _():
    with connect() as connection, connection.pipeline():
        first = connection.execute("SELECT count(*) FROM sales WHERE qty = %s", (7,))
        second = connection.execute("SELECT count(*) FROM sales WHERE qty = %s", (2,))
        same(first.fetchone() + second.fetchone(), [2, 2])


@checks("two columns of one name")
def _():
    with connect() as connection:
        same(connection.execute(SAME_NAME).fetchone(), [1, 1, 5])


@checks("note", only_hq=True)
def _():
    with connect() as connection:
        notes = []
        connection.add_notice_handler(lambda note: notes.append((note.severity, note.message_primary)))
        same(connection.execute(INCOMPLETE).fetchone(), [INCOMPLETE_EXPECTED])
        assert notes and notes[-1][0] == "WARNING" and "tacoma-01" in notes[-1][1], notes


@checks("strict", only_hq=True)
def _():
    with connect() as connection:
        connection.execute("SET rollcall.coverage = 'strict'")
        for prepare in (False, True):
            error = refused(lambda: connection.execute(INCOMPLETE, prepare=prepare), psycopg.Error)
            assert error.sqlstate == "RC001" and "tacoma-01" in str(error), (error.sqlstate, error)
            same(connection.execute("SELECT 1").fetchone(), [1])


@checks("strict by options", only_hq=True)
def _():
    with connect(options="-c rollcall.coverage=strict") as connection:
        same(refused(lambda: connection.execute(INCOMPLETE), psycopg.Error).sqlstate, "RC001")


@checks("strict in a transaction", only_hq=True)
def _():
    with connect(autocommit=False) as connection:
        connection.execute("SET LOCAL rollcall.coverage = 'strict'")
        same(refused(lambda: connection.execute(INCOMPLETE), psycopg.Error).sqlstate, "RC001")
        refused(lambda: connection.execute("SELECT 1"), psycopg.errors.InFailedSqlTransaction)
        connection.rollback()
        same(connection.execute(INCOMPLETE).fetchone(), [INCOMPLETE_EXPECTED])


@checks("pool reset")
def _():
    def reset(connection):
        connection.execute("DISCARD ALL")

    with psycopg_pool.ConnectionPool("", min_size=1, max_size=1, reset=reset, kwargs={"autocommit": True}) as pool:
        with pool.connection() as connection:
            connection.execute("SET statement_timeout = 54321")
            connection.execute("SET rollcall.coverage = 'strict'")
            first = connection
        with pool.connection() as connection:
            assert connection is first, "the pool could not reset the connection"
            same(connection.execute("SHOW statement_timeout").fetchone(), ["0"])
            same(connection.execute(INCOMPLETE).fetchone(), [INCOMPLETE_EXPECTED])


@checks("prepared statements after a reset")
def _():
    with connect() as connection:
        for _ in range(2):
            for _ in range(7):
                same(connection.execute("SELECT count(*) FROM sales WHERE qty = %s", (7,)).fetchone(), [2])
            connection.execute("DEALLOCATE ALL")


@checks("pool rolls back")
def _():
    with psycopg_pool.ConnectionPool("", min_size=1, max_size=1) as pool:
        connection = pool.getconn()
        connection.execute("SET statement_timeout = 54321")
        connection.execute("SET rollcall.coverage = 'strict'")
        pool.putconn(connection)
        with pool.connection() as connection:
            same(connection.execute("SHOW statement_timeout").fetchone(), ["0"])
            same(connection.execute(INCOMPLETE).fetchone(), [INCOMPLETE_EXPECTED])


@checks("nested transactions")
def _():
    with connect() as connection:
        with connection.transaction():
            connection.execute("SELECT 1")
            with refusing(psycopg.errors.UndefinedTable), connection.transaction():
                connection.execute("SELECT * FROM nosuch")
            with connection.transaction(savepoint_name="Named one"):
                same(connection.execute(INCOMPLETE).fetchone(), [INCOMPLETE_EXPECTED])
                raise psycopg.Rollback()
            same(connection.execute("SELECT 2").fetchone(), [2])


class refusing:
    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        assert isinstance(error, self.kind), f"{error!r}, not {self.kind.__name__}"
        return True


@checks("named cursor")
def _():
    with connect(autocommit=False) as connection:
        for binary in (False, True):
            with connection.cursor("many", binary=binary) as cursor:
                cursor.itersize = 1000
                cursor.execute(MANY)
                same(sum(row[0] for row in cursor), MANY_SUM)
        with connection.cursor("with parameters") as cursor:
            cursor.execute("SELECT id FROM sales WHERE _site = %s ORDER BY id", ("salem-01",))
            same([row[0] for row in cursor.fetchmany(3)], [1, 2, 3])
            same([row[0] for row in cursor.fetchall()], [4])


@checks("cursor with hold")
def _():
    with connect() as connection, connection.cursor("held", withhold=True) as cursor:
        cursor.execute(MANY)
        same(len(cursor.fetchmany(10)), 10)


@checks("cursor that scrolls")
def _():
    with connect(autocommit=False) as connection, connection.cursor("both", scrollable=True) as cursor:
        cursor.execute("SELECT id FROM sales WHERE _site = 'salem-01' ORDER BY id")
        cursor.scroll(2)
        same(cursor.fetchone(), [3])
        cursor.scroll(0, mode="absolute")
        same(cursor.fetchone(), [1])


@checks("stream")
def _():
    with connect() as connection:
        same(sum(row[0] for row in connection.cursor().stream(MANY)), MANY_SUM)
        same(sum(row[0] for row in connection.cursor().stream(MANY, size=100)), MANY_SUM)


@checks.each("copy", [
    ("text", COPY, COPY_TEXT), ("csv", f"{COPY} (FORMAT csv, HEADER true)", COPY_CSV), ("older form", f"{COPY} CSV HEADER", COPY_CSV),
])
def _(sql, expected):
    with connect() as connection, connection.cursor().copy(sql) as copy:
        same(b"".join(bytes(part) for part in copy).decode(), expected)


@checks.each("copy binary", [("new form", "(FORMAT binary)"), ("older form", "WITH BINARY")])
def _(form):
    sql = f"COPY ({SALES}) TO STDOUT {form}"
    types = ["int8", "text", "int8", "numeric", "float8", "bool", "date", "timestamptz", "bytea"]
    with connect() as connection, connection.cursor().copy(sql) as copy:
        copy.set_types(types)
        for row, expected in zip(copy.rows(), SALES_EXPECTED, strict=True):
            same(row, expected)


@checks("copy with parameters", only_hq=False)
def _():
    with connect() as connection, psycopg.ClientCursor(connection) as cursor:
        with cursor.copy("COPY (SELECT id FROM sales WHERE _site = %s ORDER BY id) TO STDOUT", ("salem-01",)) as copy:
            same([row[0] for row in copy.rows()], ["1", "2", "3", "4"])


@checks("cancel")
def _():
    with connect() as connection:
        in_a_moment(connection.cancel_safe)
        started = time.time()
        refused(lambda: connection.execute(LONG), psycopg.errors.QueryCanceled)
        assert time.time() - started < 20, time.time() - started
        same(connection.execute("SELECT 1").fetchone(), [1])


@checks("statement_timeout")
def _():
    with connect(options="-c statement_timeout=2000") as connection:
        refused(lambda: connection.execute(LONG), psycopg.errors.QueryCanceled)
        same(connection.execute("SELECT 1").fetchone(), [1])


@checks("set_config")
def _():
    with connect() as connection:
        same(connection.execute("SELECT set_config(%s, %s, false)", ("application_name", "till")).fetchone(), ["till"])
        same(connection.execute("SELECT current_setting(%s)", ("application_name",)).fetchone(), ["till"])


@checks("time zone")
def _():
    with connect() as connection:
        connection.execute("SET TIME ZONE 'America/Los_Angeles'")
        same(connection.info.timezone.key, "America/Los_Angeles")
        same(connection.execute("SELECT sold_at::text FROM sales WHERE id = 1 AND _site = 'salem-01'").fetchone(),
             ["2026-01-10 10:00:00-08"])


@checks("asyncio")
async def _():
    async with await psycopg.AsyncConnection.connect("", autocommit=True) as connection:
        cursor = await connection.execute("SELECT count(*) FROM sales WHERE id = ANY(%s)", ([1, 2],))
        same(await cursor.fetchone(), [4])


checks.run()
