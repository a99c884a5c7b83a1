"""asyncpg: everything is prepared, parameters and values are binary, the pool resets what it takes back."""
import time

import asyncpg

from checks import *

checks = Checks()


def numbered(sql):
    parts = sql.split("?")
    return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))


class connected:
    """A connection of its own for each check."""

    def __init__(self, **more):
        self.more = more

    async def __aenter__(self):
        self.connection = await asyncpg.connect(**self.more)
        return self.connection

    async def __aexit__(self, *error):
        await self.connection.close()


async def refused_with(awaited, kind=asyncpg.PostgresError):
    try:
        await awaited
    except kind as error:
        return error
    raise AssertionError("no error")


@checks("select every type")
async def _():
    async with connected() as connection:
        same(list(await connection.fetchrow(TYPES)), TYPES_EXPECTED)
        for row, expected in zip(await connection.fetch(SALES), SALES_EXPECTED, strict=True):
            same(list(row), expected)


def typed(parameters):
    for name, condition, value, expected in parameters:
        # A parameter is of the column's type here, and the client wants a value of that type.
        yield name, condition, Decimal(str(value)) if name == "float against decimal" else value, expected


@checks.each("parameter", typed(PARAMETERS))
async def _(condition, value, expected):
    async with connected() as connection:
        same(await connection.fetchval(numbered(f"SELECT count(*) FROM sales WHERE {condition}"), value), expected)


@checks.each("parameter of a stated type", [
    ("float against decimal", "price > $1::float8", 12.5, 4), ("int in text", "item = $1::text", "tea", 2),
    ("array of dates", "day = ANY($1::date[])", [dt.date(2026, 2, 10), dt.date(2026, 2, 12)], 4),
    ("array of decimals", "price = ANY($1::numeric[])", [Decimal("2.5"), Decimal("12.99")], 4),
    ("null or all", "($1::text IS NULL OR _site = $1)", None, 8), ("null array", "id = ANY($1::bigint[])", None, 0),
    ("empty array", "id = ANY($1::bigint[])", [], 0), ("not in an empty array", "id <> ALL($1::bigint[])", [], 8),
])
async def _(condition, value, expected):
    async with connected() as connection:
        same(await connection.fetchval(f"SELECT count(*) FROM sales WHERE {condition}", value), expected)


@checks.each("parameter comes back", [
    ("int", "$1::int", 42), ("bigint", "$1::bigint", 2**62), ("smallint", "$1::smallint", 7), ("numeric", "$1::numeric", Decimal("1.50")),
    ("float", "$1::float8", 0.1), ("text", "$1::text", "Grüße ☕"), ("boolean", "$1::boolean", False), ("bytea", "$1::bytea", b"\x00\xff"),
    ("date", "$1::date", dt.date(2026, 1, 31)), ("timestamptz", "$1::timestamptz", dt.datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ("timestamp", "$1::timestamp", dt.datetime(2026, 1, 31, 8, 0, 1)), ("null", "$1::int", None), ("text array", "$1::text[]", ["a", None, '"b'])
])
async def _(expression, value):
    async with connected() as connection:
        same(await connection.fetchval(f"SELECT {expression}", value), value)


@checks("limit and offset")
async def _():
    async with connected() as connection:
        same([row["id"] for row in await connection.fetch(numbered(PAGE), 2, 1)], [2, 3])


@checks("two columns of one name")
async def _():
    async with connected() as connection:
        same(list(await connection.fetchrow(SAME_NAME)), [1, 1, 5])


@checks("note", only_hq=True)
async def _():
    async with connected() as connection:
        notes = []
        connection.add_log_listener(lambda _, note: notes.append((note.severity, note.message)))
        same(await connection.fetchval(INCOMPLETE), INCOMPLETE_EXPECTED)
        for _ in range(100):
            if notes:
                break
            await asyncio.sleep(0.05)
        assert notes and notes[-1][0] == "WARNING" and "tacoma-01" in notes[-1][1], notes


@checks("strict", only_hq=True)
async def _():
    async with connected() as connection:
        await connection.execute("SET rollcall.coverage = 'strict'")
        error = await refused_with(connection.fetchval(INCOMPLETE))
        assert error.sqlstate == "RC001" and "tacoma-01" in str(error), (error.sqlstate, error)
        same(await connection.fetchval("SELECT 1"), 1)


@checks("strict by server settings", only_hq=True)
async def _():
    async with connected(server_settings={"rollcall.coverage": "strict"}) as connection:
        same((await refused_with(connection.fetchval(INCOMPLETE))).sqlstate, "RC001")


@checks("pool reset")
async def _():
    async with asyncpg.create_pool(min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            await connection.execute("SET rollcall.coverage = 'strict'")
            await connection.execute("SET statement_timeout = 54321")
            first = connection.get_server_pid(), connection._con
        async with pool.acquire() as connection:
            assert (connection.get_server_pid(), connection._con) == first, "the pool could not reset the connection"
            same(await connection.fetchval("SHOW statement_timeout"), "0")
            same(await connection.fetchval(INCOMPLETE), INCOMPLETE_EXPECTED)


@checks("pool reset within a transaction")
async def _():
    async with asyncpg.create_pool(min_size=1, max_size=1) as pool:
        connection = await pool.acquire()
        await connection.execute("BEGIN")
        await connection.execute("SET LOCAL rollcall.coverage = 'strict'")
        await pool.release(connection)
        same(await pool.fetchval(INCOMPLETE), INCOMPLETE_EXPECTED)


@checks("nested transactions")
async def _():
    async with connected() as connection:
        async with connection.transaction():
            try:
                async with connection.transaction():
                    await connection.fetch("SELECT * FROM nosuch")
            except asyncpg.UndefinedTableError:
                pass
            async with connection.transaction():
                same(await connection.fetchval(INCOMPLETE), INCOMPLETE_EXPECTED)
        same(await connection.fetchval("SELECT 1"), 1)


@checks.each("isolation", [(level, level) for level in ("repeatable_read", "serializable")])
async def _(level):
    async with connected() as connection, connection.transaction(isolation=level, readonly=True, deferrable=level == "serializable"):
        same(await connection.fetchval(INCOMPLETE), INCOMPLETE_EXPECTED)


@checks("cursor")
async def _():
    async with connected() as connection, connection.transaction():
        total = 0
        async for row in connection.cursor(MANY, prefetch=700):
            total += row[0]
        same(total, MANY_SUM)
        cursor = await connection.cursor("SELECT id FROM sales WHERE _site = $1 ORDER BY id", "salem-01")
        same((await cursor.fetchrow())["id"], 1)
        await cursor.forward(1)
        same([row["id"] for row in await cursor.fetch(5)], [3, 4])


@checks("statement kept")
async def _():
    async with connected() as connection:
        statement = await connection.prepare("SELECT count(*) FROM sales WHERE qty = $1")
        same([parameter.name for parameter in statement.get_parameters()], ["int8"])
        for quantity, expected in [(7, 2), (8, 0), (2, 2)]:
            same(await statement.fetchval(quantity), expected)


@checks.each("copy", [("text", {}, COPY_TEXT), ("csv", {"format": "csv", "header": True}, COPY_CSV)])
async def _(options, expected):
    import io
    async with connected() as connection:
        out = io.BytesIO()
        query = COPY.removeprefix("COPY (").removesuffix(") TO STDOUT")
        await connection.copy_from_query(query, output=out, **options)
        same(out.getvalue().decode(), expected)


@checks("copy of a table")
async def _():
    import io
    async with connected() as connection:
        out = io.BytesIO()
        await connection.copy_from_table("sales", columns=["id", "qty"], output=out)
        same(sorted(out.getvalue().decode().split("\n"))[1:3], ["1\t5", "1\t5"])


@checks("cancel")
async def _():
    async with connected() as connection:
        started = time.time()
        try:
            await asyncio.wait_for(connection.fetchval(LONG), 1)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            pass
        assert time.time() - started < 20, time.time() - started
        same(await connection.fetchval("SELECT 1"), 1)


@checks("timeout of the client")
async def _():
    async with connected() as connection:
        try:
            await connection.fetchval(LONG, timeout=1)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            pass
        same(await connection.fetchval("SELECT 1"), 1)


@checks("statement_timeout")
async def _():
    async with connected(server_settings={"statement_timeout": "2000"}) as connection:
        same((await refused_with(connection.fetchval(LONG))).sqlstate, "57014")
        same(await connection.fetchval("SELECT 1"), 1)


@checks("set_config")
async def _():
    async with connected() as connection:
        same(await connection.fetchval("SELECT set_config($1, $2, false)", "application_name", "till"), "till")
        same(await connection.fetchval("SELECT current_setting($1)", "application_name"), "till")


checks.run()
