"""What the scripts of clients that fetch whole tables share. Most of them read by binary COPY."""
import os
import urllib.parse

from checks import *

QUERY = SALES
PLAIN = "SELECT id, item, qty, rebate, paid, day FROM sales WHERE _site = 'salem-01' ORDER BY id"
PLAIN_EXPECTED = [[row[index] for index in (0, 1, 2, 4, 5, 6)] for row in SALES_EXPECTED]
EVERY_TYPE = TYPES
MILLION = "SELECT v AS a, v * 2 AS b FROM generate_series(1, 1000000) AS g(v)"
MILLION_SUMS = [500000500000, 1000001000000]


def uri(**more):
    quoted = urllib.parse.quote
    query = urllib.parse.urlencode(more, quote_via=quoted)
    who = f"{quoted(os.environ['PGUSER'], '')}:{quoted(os.environ['PGPASSWORD'], '')}"
    return f"postgresql://{who}@{os.environ['PGHOST']}:{os.environ['PGPORT']}/{os.environ['PGDATABASE']}?{query}"


def utc(value):
    """Times of a zone as UTC's; the libraries differ in the zone that they show."""
    return value.astimezone(UTC) if isinstance(value, dt.datetime) and value.tzinfo else value


def rows_of(table):
    """The rows of an Arrow table."""
    return [[utc(value) for value in row.values()] for row in table.to_pylist()]
