"""Declared thresholds: a ``[[threshold]]`` of TOML becomes a gold table of its episodes, and a part of all events."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, model_validator

from assets.aggregation import Aggregate
from assets.binding import UNSTABLE, Binder, Name, total_order
from assets.episodes import CLEARED, IS_OPEN, PENDING, RAISED, Condition
from assets.expressions import Expression, nearest, open_sandbox
from assets.settling import has_senders, settled_behind
from assets.table import UTC_TIME, Column, Table, Window, column, declare
from assets.windowing import END
from resources.durations import Duration, PositiveDuration, spelled
from resources.errors import ConfigurationError
from resources.stored_table import Partition
from resources.strict_model import StrictModel, shown, validated

EVENTS = "threshold_events"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MICROSECOND = timedelta(microseconds=1)
_EVENT_COLUMNS = (
    column("threshold", pl.String, "Name of the threshold", required=True),
    column("series", pl.String, "The values that name the series, joined by '/'", required=True),
    column(PENDING, UTC_TIME, "Since when the condition holds, or the series is silent", required=True),
    column(RAISED, UTC_TIME, "When it had held for as long as asked; null while it has not, and where it never did"),
    column(CLEARED, UTC_TIME, "When it held no more; null while it holds"),
    column("severity", pl.String, "As declared: info, warning, error or critical", required=True),
    column("message", pl.String, "The threshold's text with the values of the row that began it"),
    column("source", pl.String, "Table whose rows are watched", required=True),
    column("cause", pl.String, "JSON: time, place and values of the row that began it (of a silence: the last row)"),
)


class _Threshold(StrictModel):
    """``[[threshold]]``."""

    name: Name
    description: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(alias="from")]
    where: str | None = None
    by: Annotated[list[str], Field(min_length=1)] | None = None
    raises: Annotated[str | None, Field(alias="raise")] = None
    clear: str | None = None
    silence: PositiveDuration | None = None
    waits: Annotated[Duration, Field(alias="for")] = timedelta(0)
    lateness: Duration = timedelta(0)
    severity: Literal["info", "warning", "error", "critical"] = "warning"
    message: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _says_when(self) -> "_Threshold":
        if (self.raises is None) == (self.silence is None):
            raise ValueError("raise is missing; it, or silence, says when it is raised (not both)")
        if self.silence and self.clear:
            raise ValueError("clear is not of a silence: the next row ends it")
        if self.silence and self.waits:
            raise ValueError(f"for is not of a silence; write silence = '{spelled(self.silence + self.waits)}'")
        return self


def _upstream(wanted: _Threshold, tables: Mapping[str, Table], place: str) -> Table:
    """The table that is watched."""
    usable = {n: t for n, t in sorted(tables.items()) if t.layer in ("silver", "gold") and t.time and has_senders(t)}
    if wanted.source not in usable:
        what = "is no table of silver or gold" if wanted.source in tables else "is no table"
        raise ConfigurationError(
            f"{place}: from: {shown(wanted.source)} {what}; {nearest(wanted.source, list(usable))}"
        )
    return usable[wanted.source]


def _checked_by(wanted: _Threshold, upstream: Table, names: list[str], place: str) -> tuple[str, ...]:
    untimed = tuple(name for name in upstream.key if not upstream.schema[name].is_temporal())
    by = tuple(dict.fromkeys(wanted.by or (untimed if {*upstream.series} <= {*untimed} else upstream.series)))
    taken = {c.name for c in _EVENT_COLUMNS} | {IS_OPEN}
    for name in by:
        if name not in names:
            raise ConfigurationError(f"{place}: by names {shown(name)}, which is no column: {nearest(name, names)}")
        if name in taken:
            raise ConfigurationError(f"{place}: by names {name!r}, which every event has a column of its own for")
    return by


def _state(wanted: _Threshold, binder: Binder, place: str) -> Expression | None:
    """True where an episode begins or goes on, false where none is, null where nothing changes."""
    if wanted.raises is None:
        return None
    on = binder.condition(wanted.raises, f"{place}: raise")
    off = binder.condition(wanted.clear, f"{place}: clear") if wanted.clear else None
    if off is None:
        return on
    columns = tuple(dict.fromkeys([*on.columns, *off.columns]))
    return Expression(f"CASE WHEN {on.sql} THEN true WHEN {off.sql} THEN false END", columns)


def _message(wanted: _Threshold, binder: Binder, place: str) -> Aggregate:
    """The text with ``{expression}`` as one expression."""
    default = f"silent for {spelled(wanted.silence)}" if wanted.silence else str(wanted.raises)
    text = wanted.message or f"{wanted.name}: {default}".replace("{", "(").replace("}", ")")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        raise ConfigurationError(f"{place}: message has a brace without its other half, got {shown(text)}")
    parts: list[str] = []
    columns: list[str] = []
    for i, piece in enumerate(_PLACEHOLDER.split(text)):
        if i % 2 == 0:
            parts.append("'" + piece.replace("'", "''") + "'")
        else:
            value = binder.value("message", piece, f"{place}: message: {{{piece}}}")
            parts.append(f"coalesce(CAST({value.expression.sql} AS VARCHAR), 'unknown')")
            columns += value.expression.columns
    return Aggregate("message", Expression(" || ".join(parts), tuple(dict.fromkeys(columns))), "VARCHAR")


def _cause(upstream: Table, by: tuple[str, ...], read: Sequence[str]) -> tuple[str, ...]:
    """What is kept of the row that began an episode: when and where it is, and what was looked at."""
    placed = [n for n in (END, "stream", "sequence", "row") if n in upstream.schema]
    kept = (n for n in (*upstream.key, *read) if n not in by and upstream.schema[n] != pl.Binary)
    return tuple(dict.fromkeys([str(upstream.time), *placed, *kept]))


def _columns(upstream: Table, by: tuple[str, ...], condition: Condition) -> tuple[Column, ...]:
    origin, declared = upstream.identifier, {c.name: c for c in upstream.columns}
    time, read = f"{origin}.{upstream.time}", tuple(f"{origin}.{n}" for n in condition.reads if n not in UNSTABLE)
    lineage = {
        "series": tuple(f"{origin}.{n}" for n in by),
        **dict.fromkeys((PENDING, RAISED, CLEARED), tuple(dict.fromkeys([time, *read]))),
        **dict.fromkeys(("message", "cause"), read),
    }
    told = tuple(replace(c, lineage=lineage.get(c.name, ())) for c in _EVENT_COLUMNS)
    keys = (replace(declared[n], required=False, lineage=(f"{origin}.{n}",)) for n in by)
    is_open = column(IS_OPEN, pl.Boolean, "Whether it holds still", required=True, lineage=time)
    return (*told[:2], *keys, *told[2:5], is_open, *told[5:])


def _described(wanted: _Threshold) -> str:
    rows = f"rows of `{wanted.source}`" + (f" where {wanted.where}" if wanted.where else "")
    if wanted.silence:
        return f"One row a time in which a series sent nothing for {spelled(wanted.silence)}.\n\nSource: {rows}."
    ends = f"; it ends at {wanted.clear}" if wanted.clear else ""
    held = f", raised after {spelled(wanted.waits)}" if wanted.waits else ""
    return f"One row an episode of {wanted.raises}{held}{ends}.\n\nSource: {rows}."


def threshold(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the gold table of the episodes of a ``[[threshold]]`` of the file ``source`` over one of ``tables``.

    Expressions are those of calculations. Rows that may still change count when they are final.

    Raises:
        ConfigurationError: one line naming file, threshold, key, value and what is accepted.
    """
    wanted = validated(_Threshold, definition, f"{source}: threshold {shown(definition.get('name'))}")
    place = f"{source}: threshold {wanted.name!r}"
    upstream = _upstream(wanted, tables, place)
    names = [c.name for c in upstream.columns if c.name not in UNSTABLE]
    by = _checked_by(wanted, upstream, names, place)
    with open_sandbox() as connection:
        binder = Binder(connection, upstream.schema, names)
        where = binder.condition(wanted.where, f"{place}: where") if wanted.where else None
        state, message = _state(wanted, binder, place), _message(wanted, binder, place)
    read = [*(state.columns if state else ()), *message.expression.columns]
    condition = Condition(
        wanted.name,
        upstream.identifier,
        wanted.severity,
        by,
        str(upstream.time),
        total_order(upstream, by),
        where,
        state,
        wanted.silence or timedelta(0),
        wanted.waits,
        message,
        _cause(upstream, by, read),
    )
    lateness = settled_behind(upstream) + wanted.lateness
    return declare(
        layer="gold",
        name=wanted.name,
        description=wanted.description or _described(wanted),
        columns=_columns(upstream, by, condition),
        key=(*by, PENDING),
        inputs=(upstream,),
        function=condition,
        series=by,
        time=PENDING,
        window=Window(
            size=wanted.waits,
            reach_ahead=condition.silence,
            lateness=lateness,
            has_finality=False,
            has_episodes=True,
        ),
        final_only="is_final" in upstream.schema,
        partitions=(Partition(PENDING, "day"),),
        sort=(PENDING, *by),
        kinds=("iceberg", "gold", "threshold", "duckdb"),
        freshness=timedelta(minutes=5) + lateness + condition.silence + wanted.waits,
        definition=hashlib.sha256(f"{condition!r} {lateness}".encode()).hexdigest()[:32],
    )


def _raised(*episodes: pl.DataFrame) -> pl.DataFrame:
    names = [c.name for c in _EVENT_COLUMNS]
    return pl.concat([rows.select(names) for rows in episodes]).filter(pl.col(RAISED).is_not_null())


def threshold_events(thresholds: Sequence[Table]) -> Table:
    """The table of what all thresholds have raised."""
    names = [t.identifier for t in thresholds]
    columns = (
        replace(c, required=c.required or c.name == RAISED, lineage=tuple(f"{n}.{c.name}" for n in names))
        for c in _EVENT_COLUMNS
    )
    return declare(
        layer="gold",
        name=EVENTS,
        description="""
            One row an event: a threshold was raised in a series, and cleared or not. A late row corrects its event, or
            retracts it.

            Source: the raised episodes of every `[[threshold]]`.
        """,
        columns=tuple(columns),
        key=("threshold", "series", PENDING),
        inputs=tuple(thresholds),
        function=_raised,
        series=("threshold", "series"),
        time=PENDING,
        window=Window(size=_MICROSECOND, bound=_MICROSECOND, has_finality=False),
        partitions=(Partition(PENDING, "day"),),
        sort=(PENDING, "threshold", "series"),
        kinds=("iceberg", "gold", "threshold"),
        freshness=timedelta(minutes=5) + max(t.freshness or timedelta(0) for t in thresholds),
    )
