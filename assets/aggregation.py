"""The functions of calculations: rows of the source in, one row a series and window out."""

import hashlib
import importlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from assets.expressions import Expression, evaluate
from assets.windowing import END, GROUP, SERIES, START, Grouped, Windowing, group_rows
from resources.errors import ConfigurationError, TableFunctionError

_ROWS_OF_A_PART = 500_000
_AT = "__at"


@dataclass(frozen=True)
class Aggregate:
    """One computed column: its name, its expression, and the type in which it is stored (DuckDB's name for it)."""

    name: str
    expression: Expression
    stored_as: str


@dataclass(frozen=True)
class Windowed(ABC):
    """The function of a calculation over windows. Callable, and picklable so that it can be sent to a worker.

    Attributes:
        by: columns of the source that name a series.
        time: the source's column of event time.
        order: columns that order the rows of a series totally, ``time`` first.
        windowing: the windows.
        where: condition on rows of the source.
    """

    by: tuple[str, ...]
    time: str
    order: tuple[str, ...]
    windowing: Windowing
    where: Expression | None

    @abstractmethod
    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Returns by, window_start, window_end and the computed columns, sorted by series and start."""

    def _grouped(self, rows: pl.DataFrame, read: list[str], derived: frozenset[str]) -> tuple[pl.DataFrame, Grouped]:
        """The series by their numbers, and the rows of ``where`` in their total order, parted into windows."""
        if self.where:
            rows = rows.filter(chosen(rows, self.where))
        needed = list(dict.fromkeys([*self.order, *read]))
        # One number for all columns of the series: sorting by it takes half the time.
        series = rows.select(self.by).unique().sort(self.by).with_row_index(SERIES)
        ordered = (
            rows.select(*dict.fromkeys([*self.by, *needed]))
            .join(series, on=list(self.by), how="left", nulls_equal=True)
            .select(SERIES, *needed)
        )
        ordered = in_order(ordered, self.order, series.height)
        is_windowed = self.time == START  # rows that are windows themselves
        timed = ordered.rename({START: _AT}) if is_windowed else ordered
        return series, group_rows(timed, _AT if is_windowed else self.time, self.windowing, derived)

    def _windows(self, series: pl.DataFrame, windows: pl.DataFrame) -> pl.DataFrame:
        return series[windows[SERIES]].select(self.by).hstack(windows.select(START, END))


def in_order(rows: pl.DataFrame, order: Sequence[str], series: int) -> pl.DataFrame:
    """Sorts rows by the number of their series, then by ``order``: time, and what orders rows of one time.

    Where time alone orders them, number and time make one integer, if it holds them: sorting takes a third of the time.
    """
    at = rows[order[0]].to_physical()
    first, last = at.min(), at.max()
    if len(order) == 1 and isinstance(first, int) and isinstance(last, int):
        width = last - first + 1
        if series * width < 2**63:
            return rows.sort(pl.col(SERIES).cast(pl.Int64) * width + (pl.col(order[0]).to_physical() - first))
    return rows.sort(SERIES, *order)


def chosen(rows: pl.DataFrame, where: Expression) -> pl.Series:
    """For each row whether it meets the condition; unknown is no."""
    used = rows.select(where.columns or rows.columns[:1])
    return evaluate(f"SELECT coalesce({where.sql}, false) AS chosen FROM input", used).to_series().cast(pl.Boolean)


@dataclass(frozen=True)
class Aggregation(Windowed):
    """Aggregates in SQL.

    Attributes:
        aggregates: the computed columns.
    """

    aggregates: tuple[Aggregate, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it needs."""
        expressions = (*(a.expression for a in self.aggregates), *([self.where] if self.where else []))
        return tuple(dict.fromkeys([*self.by, *self.order, *(name for e in expressions for name in e.columns)]))

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See ``Windowed``; the same rows give the same bits, in any order and company."""
        expressions = [a.expression for a in self.aggregates]
        read = list(dict.fromkeys(name for expression in expressions for name in expression.columns))
        derived = frozenset(name for expression in expressions for name in expression.derived)
        series, grouped = self._grouped(rows, read, derived)
        given = grouped.rows.select(GROUP, *read, *sorted(derived))
        computed = pl.concat(self._in_parts(given))
        return self._windows(series, grouped.windows).hstack(computed.drop(GROUP))

    def _in_parts(self, given: pl.DataFrame) -> list[pl.DataFrame]:
        """Many rows are computed in parts, side by side; a window is whole in one of them."""
        count = min(pl.thread_pool_size(), 1 + given.height // _ROWS_OF_A_PART)
        if count == 1:
            return [evaluate(self.query, given)]
        last: Any = given[GROUP].max()
        edges = [(last + 1) * i // count for i in range(count + 1)]
        group = pl.col(GROUP)
        parts = [given.filter((group >= edges[i]) & (group < edges[i + 1])) for i in range(count)]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(partial(evaluate, self.query), parts))

    @property
    def query(self) -> str:
        """The query over ``input``: the rows with the number of their window."""
        columns = (f'CAST({a.expression.sql} AS {a.stored_as}) AS "{a.name}"' for a in self.aggregates)
        return f"SELECT {GROUP}, {', '.join(columns)} FROM input GROUP BY {GROUP} ORDER BY {GROUP}"


@dataclass(frozen=True)
class UserFunction(Windowed):
    """A function of the user's own: the rows of the windows in, one row a window out.

    Attributes:
        place: starts the messages.
        module: where it is.
        name: what it is called there.
        folder: looked in for the module, beside Python's own path.
        columns: the columns that it computes.
        identifier: the table, for messages.
    """

    identifier: str
    module: str
    name: str
    folder: str
    columns: tuple[str, ...]

    VERSION = "function_version"
    """Column that tells which source the row was computed by."""

    def load(self) -> Any:
        """The function itself.

        Raises:
            ConfigurationError: it is not there.
        """
        what = f"function {self.module}:{self.name}"
        try:
            sys.path.insert(0, self.folder)
            found = getattr(importlib.import_module(self.module), self.name, None)
        except Exception as error:
            raise ConfigurationError(f"{what} cannot be imported: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(self.folder)
        beside, loaded = (
            Path(self.folder, *self.module.split(".")).with_suffix(".py"),
            sys.modules[self.module].__file__,
        )
        if loaded and beside.exists() and not beside.samefile(loaded):
            raise ConfigurationError(f"{what}: {beside} is hidden by {loaded}; give the file another name")
        if not callable(found):
            raise ConfigurationError(f"{what}: the module has no function of that name")
        return found

    @cached_property
    def version(self) -> str:
        """First half of the SHA-256 of the module's source."""
        self.load()
        path = sys.modules[self.module].__file__
        assert path is not None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32]

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """See ``Windowed``.

        Raises:
            TableFunctionError: the function fails, or returns something else.
        """
        function, version = self.load(), self.version
        read = [name for name in rows.columns if name not in (*self.by, START, END)]
        series, grouped = self._grouped(rows, read, frozenset())
        given = series[grouped.rows[SERIES]].select(self.by).hstack(grouped.rows.select(*read, START, END))
        key = [*self.by, START]
        try:
            found = function(given)
            result = found.select(*key, *self.columns)
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TableFunctionError(f"{self.identifier}: function {self.module}:{self.name} failed: {why}") from error
        windows = self._windows(series, grouped.windows)
        joined = windows.join(result, on=key, how="inner", nulls_equal=True, maintain_order="left")
        if joined.height != result.height or joined.select(key).is_duplicated().any():
            raise TableFunctionError(
                f"{self.identifier}: function {self.module}:{self.name} must return one row a window that it was given "
                f"at the most, got {result.height} rows of which {joined.height} are of one"
            )
        return joined.with_columns(pl.lit(version).alias(self.VERSION))
