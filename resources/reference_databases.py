"""Reference data in databases: what a query gives, over any URL that SQLAlchemy knows a driver for."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from threading import Thread
from typing import Any

import polars as pl
from sqlalchemy import URL, Connection, NullPool, create_engine, literal_column, make_url, select, table
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from resources.durations import spelled
from resources.errors import SourceUnavailableError, reason_of

_MOST_ROWS = 2_000_000
_PLAIN = (bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta)
_EXTRAS = {"psycopg": "secchi[postgresql]", "pymysql": "secchi[mysql]"}


def parse_url(text: str) -> URL:
    """A database URL.

    Raises:
        ValueError: it is none; the message does not repeat it, as it may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ValueError("must be an SQLAlchemy URL like 'postgresql+psycopg://user@host/database'") from error
    return url


def read_only(url: URL) -> URL:
    """The URL, of SQLite so that nothing is made or changed."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return url
    return url.set(database=f"file:{url.database}", query={**url.query, "mode": "ro", "uri": "true"})


def read_reference_query(url: URL, query: str | None, name: str | None, timeout: timedelta) -> pl.DataFrame:
    """The rows of a query, or of a table by its name (``schema.table`` too).

    Raises:
        SourceUnavailableError: the driver is not there, the database does not answer in time, refuses, or gives no row.
    """
    answer: Future[pl.DataFrame] = Future()
    # A thread of its own: not every driver has a timeout, and a host that swallows packets would hold the micro-batch.
    Thread(target=_answer, args=(answer, lambda: _rows(url, query, name)), name="reference", daemon=True).start()
    try:
        failure = answer.exception(timeout.total_seconds())
    except FutureTimeoutError as error:
        raise SourceUnavailableError(f"{_shown(url)}: did not answer within {spelled(timeout)}") from error
    if failure is not None:  # what a driver says may hold the password, so the error itself is not handed on
        raise SourceUnavailableError(f"{_shown(url)}: {_hidden(_told(failure), url)}")
    rows = answer.result()
    if rows.is_empty():
        raise SourceUnavailableError(f"{_shown(url)}: gives no row")
    return rows


def _answer(answer: "Future[pl.DataFrame]", ask: Callable[[], pl.DataFrame]) -> None:
    try:
        answer.set_result(ask())
    except Exception as error:  # noqa: BLE001  the boundary of the thread; told by the one that waits
        answer.set_exception(error)


def _rows(url: URL, query: str | None, name: str | None) -> pl.DataFrame:
    engine = create_engine(read_only(url), poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        result = _asked(connection, query, name)
        names, rows = list(result.keys()), result.fetchmany(_MOST_ROWS + 1)
    if len(rows) > _MOST_ROWS:
        raise ValueError(f"gives more than {_MOST_ROWS} rows, which is no reference data")
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return pl.DataFrame([_series(n, values) for n, values in zip(names, columns, strict=True)])


def _asked(connection: Connection, query: str | None, name: str | None) -> Any:
    if query is not None:
        return connection.execution_options(no_parameters=True).exec_driver_sql(query)
    schema, _, plain = str(name).rpartition(".")
    return connection.execute(select(literal_column("*")).select_from(table(plain, schema=schema or None)))


def _series(name: str, values: Any) -> pl.Series:
    """What polars has no type for (a UUID, say) as text."""
    return pl.Series(name, [v if v is None or isinstance(v, _PLAIN) else str(v) for v in values])


def _told(error: BaseException) -> str:
    if isinstance(error, ImportError):
        driver = error.name or str(error)
        return f"the driver {driver} is not installed; install {_EXTRAS.get(driver.lower(), driver)}"
    if isinstance(error, NoSuchModuleError):
        return f"there is no such dialect: {reason_of(error)}"
    if isinstance(error, DBAPIError) and error.orig is not None:
        return reason_of(error.orig)
    return reason_of(error) if isinstance(error, SQLAlchemyError | OSError) else f"{type(error).__name__}: {error}"


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _hidden(text: str, url: URL) -> str:
    """The text in one line, without the password."""
    line = " ".join(text.split())
    return line.replace(str(url.password), "<secret>") if url.password else line
