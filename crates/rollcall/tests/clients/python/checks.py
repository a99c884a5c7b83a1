"""What the scripts of Python's clients share: checks that are counted, the scene's rows, and the questions asked of every client.

`AGAINST=postgresql` leaves out what only HQ has (coverage): so the scripts themselves are tried on a PostgreSQL with the same rows.
"""
import asyncio
import datetime as dt
import inspect
import os
import sys
import traceback
from decimal import Decimal

AT_HQ = os.environ.get("AGAINST", "hq") == "hq"
SITES = ("salem-01", "seattle-01")
UTC = dt.timezone.utc

TYPES = """SELECT 7::smallint AS s, 42::int AS i, 9007199254740993::bigint AS b, 12345.6789::numeric(12,4) AS n,
    1.5::float8 AS f, 1.25::real AS r, 'Grüße ☕, "o''pie"'::text AS t, DATE '2026-01-31' AS d,
    TIMESTAMPTZ '2026-01-31 10:00:00.123456+02' AS z, TIMESTAMP '2026-01-31 10:00:00.5' AS l, true AS o,
    '\\x00ff41'::bytea AS y, NULL::text AS e"""
TYPES_EXPECTED = [7, 42, 9007199254740993, Decimal("12345.6789"), 1.5, 1.25, 'Grüße ☕, "o\'pie"', dt.date(2026, 1, 31),
                  dt.datetime(2026, 1, 31, 8, 0, 0, 123456, UTC), dt.datetime(2026, 1, 31, 10, 0, 0, 500000), True,
                  b"\x00\xffA", None]
SALES = """SELECT id, item, qty, price, rebate, paid, day, sold_at, receipt FROM sales
    WHERE _site = 'salem-01' ORDER BY id"""
SALES_EXPECTED = [
    [1, "tea", 5, Decimal("2.50"), 0.25, True, dt.date(2026, 1, 10), dt.datetime(2026, 1, 10, 18, tzinfo=UTC), b"\x00\xffA"],
    [2, 'o\'pie, "warm"', 7, Decimal("12.99"), None, False, dt.date(2026, 2, 10), dt.datetime(2026, 2, 10, 18, tzinfo=UTC), None],
    [3, "Grüße ☕", 2, Decimal("1000.01"), -1.5, None, None, dt.datetime(2026, 2, 12, 7, 30, tzinfo=UTC), b""],
    [4, None, None, None, 0.0, True, dt.date(2026, 2, 12), dt.datetime(2026, 2, 12, 16, 15, 30, 123456, UTC), b"\xab"],
]
# What each condition with one parameter finds in the rows of both sites.
PARAMETERS = [
    ("int", "qty = ?", 7, 2),
    ("decimal", "price = ?", Decimal("2.50"), 2),
    ("float", "rebate = ?", 0.25, 2),
    ("float against decimal", "price > ?", 12.5, 4),
    ("text", "item = ?", 'o\'pie, "warm"', 2),
    ("date", "day = ?", dt.date(2026, 2, 10), 2),
    ("timestamptz", "sold_at >= ?", dt.datetime(2026, 2, 11, tzinfo=UTC), 4),
    ("boolean", "paid = ?", True, 4),
    ("bytea", "receipt = ?", b"\x00\xffA", 2),
    ("null, equal", "qty = ?", None, 0),
    ("null, not distinct", "qty IS NOT DISTINCT FROM ?", None, 2),
    ("text array", "_site = ANY(?)", ["salem-01", "elsewhere"], 4),
    ("int array", "id = ANY(?)", [1, 3], 4),
    ("array with quotes and null", "item = ANY(?)", ["tea", None, 'o\'pie, "warm"'], 4),
    ("not in an array", "id <> ALL(?)", [1, 2], 4),
]
PAGE = "SELECT id FROM sales ORDER BY _site, id LIMIT ? OFFSET ?"
SAME_NAME = "SELECT id, id, qty AS id FROM sales WHERE id = 1 AND _site = 'salem-01'"
INCOMPLETE = "SELECT count(*) FROM sales"
INCOMPLETE_EXPECTED = 8
MANY = "SELECT v FROM generate_series(1, 10000) AS g(v)"
MANY_SUM = 50005000
LONG = """SELECT count(*) FROM generate_series(1, 1000000) AS a(v), generate_series(1, 1000000) AS b(v)
    WHERE (a.v + b.v) % 7 = 3"""
COPY = "COPY (SELECT id, item, price, day, paid FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT"
COPY_TEXT = '1\ttea\t2.50\t2026-01-10\tt\n2\to\'pie, "warm"\t12.99\t2026-02-10\tf\n3\tGrüße ☕\t1000.01\t\\N\t\\N\n4\t\\N\t\\N\t2026-02-12\tt\n'
COPY_CSV = 'id,item,price,day,paid\n1,tea,2.50,2026-01-10,t\n2,"o\'pie, ""warm""",12.99,2026-02-10,f\n3,Grüße ☕,1000.01,,\n4,,,2026-02-12,t\n'


def same(got, expected):
    """Fails with both unless they are equal, types included: 1 is not 1.0 here, nor True."""
    plain = lambda value: bytes(value) if isinstance(value, (memoryview, bytearray)) else value
    got, expected = [list(map(plain, side)) if isinstance(side, (list, tuple)) else [plain(side)] for side in (got, expected)]
    assert [(type(value), value) for value in got] == [(type(value), value) for value in expected], f"{got!r}, not {expected!r}"


class Checks:
    def __init__(self):
        self.checks = []

    def __call__(self, name, only_hq=False):
        def register(function):
            if AT_HQ or not only_hq:
                self.checks.append((name, function))
            return function
        return register

    def each(self, name, cases, only_hq=False):
        """One check for each case, whose first member is its name."""
        def register(function):
            for case in cases:
                self(f"{name}: {case[0]}", only_hq)(lambda case=case: function(*case[1:]))
            return function
        return register

    def run(self):
        wanted, failed = sys.argv[1:], 0
        for name, function in self.checks:
            if wanted and not any(word in name for word in wanted):
                continue
            try:
                result = function()
                if inspect.isawaitable(result):
                    asyncio.run(asyncio.wait_for(result, 60))
                print(f"ok {name}", flush=True)
            except BaseException as error:
                failed += 1
                detail = " ".join(f"{type(error).__name__}: {error}".split())
                print(f"FAIL {name}: {detail[:500]}", flush=True)
                if os.environ.get("TRACE"):
                    traceback.print_exc()
        sys.exit(1 if failed or not self.checks else 0)


def refused(function, *kinds):
    """The error that `function` ends with; fails if there is none."""
    try:
        function()
    except kinds or (Exception,) as error:
        return error
    raise AssertionError("no error")


def in_a_moment(function, seconds=1.0):
    """Calls `function` from another thread in a moment."""
    import threading
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer
