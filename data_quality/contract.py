"""The contract of a table: what a row must be to be committed. Derived from the declaration, applied before the commit.

Types, required values, finite numbers, ranges and the bounds of event time are judged row by row; a bad row goes to
quarantine with its reason and does not touch its neighbours. Unique keys are the work of deduplication.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import polars as pl

from resources.errors import SchemaMismatchError, reason_of

RECEIVED_AT = "received_at"
SET_LATER = frozenset({"batch_id", "is_final", "revision", "corrected_at", "is_retracted"})
"""Columns that the engine sets after the contract was applied."""

_LONGEST_VALUE = 80
_CALENDAR = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
_RAW = "as it came: "


class ContractColumn(Protocol):
    """The part of ``assets.table.Column`` that a contract is made of."""

    @property
    def name(self) -> str:
        """Column name."""

    @property
    def required(self) -> bool:
        """Whether the value may not be null."""

    @property
    def minimum(self) -> float | None:
        """Inclusive lower bound."""

    @property
    def maximum(self) -> float | None:
        """Inclusive upper bound."""


class ContractTable(Protocol):
    """The part of ``assets.table.Table`` that a contract is made of."""

    @property
    def identifier(self) -> str:
        """``layer.table``."""

    @property
    def columns(self) -> Sequence[ContractColumn]:
        """The declared columns."""

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """Column name to type, in stored order."""

    @property
    def key(self) -> Sequence[str]:
        """Columns that name a row."""

    @property
    def time(self) -> str | None:
        """The column of event time."""


@dataclass(frozen=True)
class _Check:
    """A condition that bad rows meet, and what their message says."""

    reason: str
    is_bad: pl.Expr
    message: pl.Expr


def apply_contract(
    table: ContractTable, rows: pl.DataFrame, *, skew: timedelta, earliest: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Parts rows into those that may be committed and those that violate the contract.

    Args:
        table: the declared table.
        rows: its rows; columns of another type are cast. Columns that are not declared are kept as they are.
        skew: how much later than ``received_at`` the event time may be.
        earliest: the event time may not be before it.

    Returns:
        ``(good, violations)``. ``good`` has the declared columns in their order and types, then the others; those of
        ``SET_LATER`` only if ``rows`` has them. ``violations`` has the bad rows as they came with ``reason``
        (``wrong_type``, ``missing_required``, ``not_finite``, ``below_minimum``, ``above_maximum``, ``time_too_late``,
        ``time_too_early``: the first that holds) and ``message``; columns of these names that a row has itself are
        ``row_reason`` and ``row_message``.

    Raises:
        SchemaMismatchError: if a required column is not there at all, or its type can never become the declared one:
            a mistake of the table's function, not of a row.
    """
    work, casts = _typed(table, rows)
    checks = [*casts, *_value_checks(table, work), *_time_checks(table, work, skew, earliest)]
    failing = _failing(checks, work)
    good = work.select(name for name in work.columns if not name.startswith(_RAW))
    if not failing:
        return good, rows.clear().with_columns(reason=pl.lit("", pl.String), message=pl.lit("", pl.String))
    is_bad = work.select(pl.any_horizontal(check.is_bad.fill_null(False) for check in failing)).to_series()
    reason, message = _first_of(failing)
    told = work.filter(is_bad).select(reason.alias("reason"), message.alias("message"))
    own = {name: f"row_{name}" for name in told.columns if name in rows.columns}
    return good.filter(~is_bad), rows.filter(is_bad).rename(own).hstack(told)


def _failing(checks: Sequence[_Check], work: pl.DataFrame) -> list[_Check]:
    """The checks that at least one row fails: most batches fail none, and then no row is copied."""
    found = work.select(check.is_bad.any().alias(str(i)) for i, check in enumerate(checks)).row(0) if checks else ()
    return [check for check, is_bad in zip(checks, found, strict=True) if is_bad]


def _first_of(failing: Sequence[_Check]) -> tuple[pl.Expr, pl.Expr]:
    reasons = (pl.when(check.is_bad).then(pl.lit(check.reason)) for check in failing)
    messages = (pl.when(check.is_bad).then(check.message) for check in failing)
    return pl.coalesce(*reasons), pl.coalesce(*messages)


def _typed(table: ContractTable, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[_Check]]:
    """The rows in declared order and types, each cast column also as it came, and the checks of the casts."""
    columns: list[pl.Expr] = []
    checks: list[_Check] = []
    required = {column.name for column in table.columns if column.required}
    for name, declared in table.schema.items():
        if name not in rows.columns:
            if name in SET_LATER:
                continue
            if name in required:
                raise SchemaMismatchError(f"{table.identifier}: the rows have no column {name!r}; it is required")
            columns.append(pl.lit(None, declared).alias(name))
        elif rows.schema[name] == declared:
            columns.append(pl.col(name))
        else:
            columns += [pl.col(name).cast(declared, strict=False), pl.col(name).alias(_RAW + name)]
            checks.append(_cast_check(table, name, rows.schema[name]))
    others = (name for name in rows.columns if name not in table.schema)
    try:
        return rows.select(*columns, *others), checks
    except pl.exceptions.PolarsError as error:
        other = {n: t for n, t in rows.schema.items() if n in table.schema and t != table.schema[n]}
        what = ", ".join(f"{name!r} is {found}, declared {table.schema[name]}" for name, found in other.items())
        raise SchemaMismatchError(f"{table.identifier}: rows do not fit ({what}): {reason_of(error)}") from error


def _cast_check(table: ContractTable, name: str, found: pl.DataType) -> _Check:
    declared, raw = table.schema[name], pl.col(_RAW + name)
    is_bad = raw.is_not_null() & pl.col(name).is_null()
    if found.is_numeric() and declared.is_integer():
        is_bad |= pl.col(name).cast(found, strict=False) != raw  # 12.5 is no integer
    return _Check("wrong_type", is_bad, _message(table, name, raw, found, f", which is no {declared}"))


def _message(table: ContractTable, name: str, value: pl.Expr, dtype: pl.DataType, complaint: str | pl.Expr) -> pl.Expr:
    is_shown = not dtype.is_nested() and dtype != pl.Binary
    text = _text(value, dtype).str.head(_LONGEST_VALUE) if is_shown else pl.lit(f"a {dtype}")
    end = pl.lit(complaint) if isinstance(complaint, str) else complaint
    return pl.concat_str(pl.lit(f"{table.identifier}.{name} is "), text.fill_null("null"), end)


def _text(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if not isinstance(dtype, pl.Datetime):
        return value.cast(pl.String)
    # polars ends the process where it should write a time that no calendar has.
    first, last = (pl.lit(moment, dtype) for moment in _CALENDAR)
    written = pl.when(value.is_between(first, last)).then(value).cast(pl.String)
    return pl.coalesce(written, pl.format(f"{{}} {dtype.time_unit} from 1970", value.to_physical()))


def _value_checks(table: ContractTable, work: pl.DataFrame) -> Iterator[_Check]:
    for column in table.columns:
        if column.name not in work.columns:
            continue
        value, dtype = pl.col(column.name), work.schema[column.name]
        has_bounds = column.minimum is not None or column.maximum is not None

        def check(reason: str, is_bad: pl.Expr, complaint: str, name: str = column.name) -> _Check:
            return _Check(reason, is_bad, _message(table, name, pl.col(name), table.schema[name], complaint))

        if column.required:
            yield check("missing_required", value.is_null(), "; it is required")
        if dtype.is_float() and (column.required or has_bounds):
            yield check("not_finite", ~value.is_finite(), "; it must be a finite number")
        if column.minimum is not None:
            yield check("below_minimum", value < column.minimum, f"; the minimum is {column.minimum}")
        if column.maximum is not None:
            yield check("above_maximum", value > column.maximum, f"; the maximum is {column.maximum}")


def _time_checks(table: ContractTable, work: pl.DataFrame, skew: timedelta, earliest: datetime) -> list[_Check]:
    if table.time is None or not {table.time, RECEIVED_AT} <= set(work.columns):
        return []
    time, received = pl.col(table.time), pl.col(RECEIVED_AT)
    late = pl.format(f", later than {RECEIVED_AT} {{}} by more than {skew}", received.cast(pl.String))
    early = f", earlier than {earliest.isoformat()}"
    dtype = work.schema[table.time]
    return [
        _Check("time_too_late", time > received + skew, _message(table, table.time, time, dtype, late)),
        _Check("time_too_early", time < earliest, _message(table, table.time, time, dtype, early)),
    ]


def contract_description(table: ContractTable) -> list[str]:
    """The contract in words, a line a rule, for people."""
    lines = [f"One row for each {', '.join(table.key)}"]
    for column in table.columns:
        rules = [f"is {table.schema[column.name].base_type()}"]
        if column.required:
            rules.append("is required")
        if column.minimum is not None:
            rules.append(f"is at least {column.minimum}")
        if column.maximum is not None:
            rules.append(f"is at most {column.maximum}")
        lines.append(f"{column.name} {', '.join(rules)}")
    if table.time and RECEIVED_AT in table.schema and table.time != RECEIVED_AT:
        lines.append(f"{table.time} is not later than {RECEIVED_AT} plus time.skew and not earlier than time.earliest")
    return lines
