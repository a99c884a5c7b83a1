"""SQLAlchemy 2 through psycopg 3 and psycopg2: what an ORM or a BI tool of Python's sends."""
import logging
import os
import time

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from checks import *

checks = Checks()
DRIVERS = [(driver, driver) for driver in ("psycopg", "psycopg2")]


def engine(driver, **more):
    url = sa.URL.create(
        f"postgresql+{driver}", os.environ["PGUSER"], os.environ["PGPASSWORD"], os.environ["PGHOST"], int(os.environ["PGPORT"]),
        os.environ["PGDATABASE"])
    return sa.create_engine(url, **more)


class Base(DeclarativeBase):
    pass


class Sale(Base):
    __tablename__ = "sales"
    site: Mapped[str] = mapped_column("_site", primary_key=True)
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    item: Mapped[str | None]
    qty: Mapped[int | None] = mapped_column(sa.BigInteger)
    price: Mapped[Decimal | None]
    rebate: Mapped[float | None] = mapped_column(sa.Double)
    paid: Mapped[bool | None]
    day: Mapped[dt.date | None]
    sold_at: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    receipt: Mapped[bytes | None]


@checks.each("connect", DRIVERS)
def _(driver):
    with engine(driver).connect() as connection:
        same(connection.execute(sa.text("SELECT 1")).scalar(), 1)


@checks.each("select every type", DRIVERS)
def _(driver):
    with engine(driver).connect() as connection:
        same(list(connection.execute(sa.text(TYPES)).one()), TYPES_EXPECTED)
    with Session(engine(driver)) as session:
        sales = session.scalars(sa.select(Sale).where(Sale.site == "salem-01").order_by(Sale.id)).all()
        for sale, expected in zip(sales, SALES_EXPECTED, strict=True):
            same([sale.id, sale.item, sale.qty, sale.price, sale.rebate, sale.paid, sale.day, sale.sold_at, sale.receipt], expected)


def conditions():
    each = [
        ("int", Sale.qty == 7, 2), ("decimal", Sale.price == Decimal("2.50"), 2), ("float", Sale.rebate == 0.25, 2),
        ("float against decimal", Sale.price > 12.5, 4), ("text", Sale.item == 'o\'pie, "warm"', 2),
        ("like", Sale.item.ilike("GR%"), 2), ("contains", Sale.item.contains("pie"), 2),
        ("date", Sale.day == dt.date(2026, 2, 10), 2), ("timestamptz", Sale.sold_at >= dt.datetime(2026, 2, 11, tzinfo=UTC), 4),
        ("boolean", Sale.paid.is_(True), 4), ("bytea", Sale.receipt == b"\x00\xffA", 2), ("null", Sale.qty == sa.literal(None, sa.BigInteger), 0),
        ("is null", Sale.qty.is_(None), 2), ("in", Sale.id.in_([1, 3]), 4), ("not in", Sale.id.not_in([1, 2]), 4), ("in nothing", Sale.id.in_([]), 0),
        ("any", Sale.site == sa.any_(sa.literal(["salem-01", "elsewhere"], sa.ARRAY(sa.Text))), 4),
    ]
    return [(f"{name}, {driver}", driver, condition, expected) for _, driver in DRIVERS for name, condition, expected in each]


@checks.each("parameter", conditions())
def _(driver, condition, expected):
    with Session(engine(driver)) as session:
        same(session.scalar(sa.select(sa.func.count()).select_from(Sale).where(condition)), expected)


@checks.each("limit and offset", DRIVERS)
def _(driver):
    with Session(engine(driver)) as session:
        page = sa.select(Sale.id).order_by(Sale.site, Sale.id).limit(2).offset(1)
        same(session.scalars(page).all(), [2, 3])


@checks.each("two columns of one name", DRIVERS)
def _(driver):
    with engine(driver).connect() as connection:
        same(list(connection.execute(sa.text(SAME_NAME)).one()), [1, 1, 5])


@checks.each("group, extract and truncate", DRIVERS)
def _(driver):
    month = sa.func.date_trunc("month", Sale.sold_at)
    with Session(engine(driver)) as session:
        rows = session.execute(sa.select(sa.extract("month", month), sa.func.sum(Sale.qty)).group_by(month).order_by(month)).all()
        assert [(int(row[0]), int(row[1])) for row in rows] == [(1, 10), (2, 18)], rows


@checks.each("note", DRIVERS, only_hq=True)
def _(driver):
    with engine(driver).connect() as connection:
        raw, notes = connection.connection.driver_connection, []
        if driver == "psycopg":
            raw.add_notice_handler(lambda note: notes.append(f"{note.severity} {note.message_primary}"))
        else:
            # SQLAlchemy takes psycopg2's notices and logs them.
            logger, handler = logging.getLogger("sqlalchemy.dialects.postgresql"), logging.Handler()
            handler.emit = lambda record: notes.append(record.getMessage())
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        connection.execute(sa.text(INCOMPLETE)).scalar()
        assert "WARNING" in notes[-1] and "tacoma-01" in notes[-1], notes


@checks.each("strict", DRIVERS, only_hq=True)
def _(driver):
    options = {"connect_args": {"options": "-c rollcall.coverage=strict"}}
    with engine(driver, **options).connect() as connection:
        error = refused(lambda: connection.execute(sa.text(INCOMPLETE)), sa.exc.DBAPIError)
        same(getattr(error.orig, "sqlstate", None) or error.orig.pgcode, "RC001")
        connection.rollback()
        same(connection.execute(sa.text("SELECT 1")).scalar(), 1)


@checks.each("pool reset", DRIVERS)
def _(driver):
    one = engine(driver, pool_size=1, max_overflow=0)
    with one.connect() as connection:
        connection.execute(sa.text("SET rollcall.coverage = 'strict'"))
        connection.execute(sa.text("SET statement_timeout = 54321"))
    with one.connect() as connection:
        # Rolled back by the pool, and with it what was set.
        same(connection.execute(sa.text("SHOW statement_timeout")).scalar(), "0")
        same(connection.execute(sa.text(INCOMPLETE)).scalar(), INCOMPLETE_EXPECTED)


@checks.each("pool reset that discards all", DRIVERS)
def _(driver):
    one = engine(driver, pool_size=1, max_overflow=0, pool_reset_on_return=None, isolation_level="AUTOCOMMIT")

    @sa.event.listens_for(one, "reset")
    def reset(connection, record, state):
        connection.cursor().execute("DISCARD ALL")

    with one.connect() as connection:
        connection.execute(sa.text("SET rollcall.coverage = 'strict'"))
        connection.execute(sa.text("SET statement_timeout = 54321"))
    with one.connect() as connection:
        same(connection.execute(sa.text("SHOW statement_timeout")).scalar(), "0")
        same(connection.execute(sa.text(INCOMPLETE)).scalar(), INCOMPLETE_EXPECTED)


@checks.each("pre-ping", DRIVERS)
def _(driver):
    one = engine(driver, pool_pre_ping=True)
    for _ in range(3):
        with one.connect() as connection:
            same(connection.execute(sa.text("SELECT 1")).scalar(), 1)


@checks.each("begin_nested", DRIVERS)
def _(driver):
    with Session(engine(driver)) as session, session.begin():
        session.execute(sa.text("SELECT 1"))
        try:
            with session.begin_nested():
                session.execute(sa.text("SELECT * FROM nosuch"))
            raise AssertionError("no error")
        except sa.exc.ProgrammingError as error:
            assert "nosuch" in str(error), error
        with session.begin_nested():
            same(session.scalar(sa.text(INCOMPLETE)), INCOMPLETE_EXPECTED)


@checks.each("stream_results", DRIVERS)
def _(driver):
    with engine(driver).connect() as connection:
        result = connection.execution_options(stream_results=True, max_row_buffer=500).execute(sa.text(MANY))
        same(sum(row[0] for row in result), MANY_SUM)


@checks.each("yield_per", DRIVERS)
def _(driver):
    with Session(engine(driver)) as session:
        sales = session.scalars(sa.select(Sale).order_by(Sale.site, Sale.id).execution_options(yield_per=3))
        same([sale.id for sale in sales], [1, 2, 3, 4] * 2)


@checks.each("isolation levels", [(f"{level}, {driver}", driver, level) for level in ("REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT") for _, driver in DRIVERS])
def _(driver, level):
    with engine(driver, isolation_level=level).connect() as connection:
        same(connection.execute(sa.text(INCOMPLETE)).scalar(), INCOMPLETE_EXPECTED)
    with engine(driver).connect() as connection:
        same(connection.get_isolation_level(), "READ COMMITTED")


@checks.each("read only transaction", DRIVERS)
def _(driver):
    with engine(driver).connect().execution_options(postgresql_readonly=True) as connection:
        same(connection.execute(sa.text(INCOMPLETE)).scalar(), INCOMPLETE_EXPECTED)


@checks.each("reflection: names", DRIVERS)
def _(driver):
    inspector = sa.inspect(engine(driver))
    assert "public" in inspector.get_schema_names(), inspector.get_schema_names()
    assert {"sales", "sites"} <= set(inspector.get_table_names() + inspector.get_view_names()), inspector.get_table_names()
    assert inspector.has_table("sales") and not inspector.has_table("nosuch")
    same(inspector.default_schema_name, "public")


@checks.each("reflection: columns", DRIVERS)
def _(driver):
    columns = {column["name"]: column["type"] for column in sa.inspect(engine(driver)).get_columns("sales")}
    for name, kind in [("id", sa.BIGINT), ("item", sa.TEXT), ("price", sa.NUMERIC), ("rebate", sa.DOUBLE_PRECISION),
                       ("paid", sa.BOOLEAN), ("day", sa.DATE), ("sold_at", sa.TIMESTAMP), ("_epoch", sa.INTEGER)]:
        assert isinstance(columns[name], kind), (name, columns[name])
    assert columns["sold_at"].timezone
    same([columns["price"].precision, columns["price"].scale], [10, 2])


@checks.each("reflection: keys", DRIVERS)
def _(driver):
    inspector = sa.inspect(engine(driver))
    assert {"_site", "id"} <= set(inspector.get_pk_constraint("sales")["constrained_columns"]), inspector.get_pk_constraint("sales")
    same(inspector.get_foreign_keys("sales"), [])
    inspector.get_indexes("sales"), inspector.get_unique_constraints("sales"), inspector.get_check_constraints("sales")
    inspector.get_table_comment("sales")


@checks.each("reflection: whole tables", DRIVERS)
def _(driver):
    one = engine(driver)
    table = sa.Table("sales", sa.MetaData(), autoload_with=one)
    with one.connect() as connection:
        rows = connection.execute(sa.select(table.c.id, table.c.price).where(table.c["_site"] == "salem-01").order_by(table.c.id)).all()
        same([row[1] for row in rows][:2], [Decimal("2.50"), Decimal("12.99")])
    every = sa.MetaData()
    every.reflect(one, views=True)
    assert {"sales", "sites"} <= set(every.tables), every.tables.keys()


@checks.each("cancel", DRIVERS)
def _(driver):
    with engine(driver, isolation_level="AUTOCOMMIT").connect() as connection:
        in_a_moment(connection.connection.driver_connection.cancel)
        started = time.time()
        error = refused(lambda: connection.execute(sa.text(LONG)), sa.exc.OperationalError)
        same(getattr(error.orig, "sqlstate", None) or error.orig.pgcode, "57014")
        assert time.time() - started < 20, time.time() - started
        same(connection.execute(sa.text("SELECT 1")).scalar(), 1)


checks.run()
