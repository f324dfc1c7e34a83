"""Declared joins: a ``[[calculation]]`` of kind ``join`` pairs the rows of two filtered streams in event time."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from assets.aggregation import Aggregate
from assets.binding import STORED_TYPES, UNSTABLE, Binder, Name, total_order
from assets.expressions import Expression, nearest, open_sandbox
from assets.pairing import PAIRED_AT, Match, Pairing, Side
from assets.table import UTC_TIME, Column, Table, Window, column, declare
from resources.durations import PositiveDuration, spelled
from resources.errors import ConfigurationError
from resources.stored_table import Partition
from resources.strict_model import StrictModel, shown, validated

_LONGEST = timedelta(days=7)
_MATCHES: dict[Match, str] = {
    "latest": "each {left} with the latest {right} at or before it",
    "next": "each {left} with the first {right} at or after it",
    "latest_both": "each {left} with the latest {right} at or before it, and the other way round",
    "nearest": "each {left} with the nearest {right}",
    "all": "every {left} with every {right}",
}


def _not_too_long(value: timedelta) -> timedelta:
    if value > _LONGEST:
        raise ValueError(f"must be at most {spelled(_LONGEST)}, got {spelled(value)}")
    return value


class _Side(StrictModel):
    name: Name
    source: Annotated[str, Field(alias="from")]
    where: str | None = None


class _Join(StrictModel):
    """``[[calculation]]`` of kind ``join``."""

    name: Name
    kind: Literal["join"]
    description: Annotated[str, Field(min_length=1)] | None = None
    by: Annotated[list[str], Field(min_length=1)]
    within: Annotated[PositiveDuration, AfterValidator(_not_too_long)]
    match: Match
    left: _Side
    right: _Side
    select: Annotated[dict[Name, str], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> "_Join":
        if self.left.name == self.right.name:
            raise ValueError(
                f"left.name and right.name are both {self.left.name!r}; expressions tell the sides by them"
            )
        taken = {*self.by, PAIRED_AT, f"{self.left.name}_at", f"{self.right.name}_at", *UNSTABLE}
        if same := sorted(taken & self.select.keys()):
            raise ValueError(f"select.{same[0]} has the name of a column that every row has; choose another")
        return self

    @property
    def sides(self) -> tuple[_Side, _Side]:
        """Left and right."""
        return self.left, self.right


def sources_of(definition: Mapping[str, Any]) -> list[str]:
    """The tables that a calculation reads, as far as it says so."""
    if definition.get("kind") != "join":
        return [str(definition.get("from"))]
    sides = (definition.get(name) for name in ("left", "right"))
    return [str(side.get("from")) for side in sides if isinstance(side, dict)]


def _is_usable(table: Table) -> bool:
    has_episodes = table.window is not None and table.window.has_episodes
    return table.layer in ("silver", "gold") and bool(table.time and table.series) and not has_episodes


def _input(wanted: _Side, tables: Mapping[str, Table], place: str) -> Table:
    usable = {n: t for n, t in sorted(tables.items()) if _is_usable(t)}
    if wanted.source not in usable:
        what = "is not a silver or gold table of rows with a time" if wanted.source in tables else "is no table"
        raise ConfigurationError(f"{place}.from: {shown(wanted.source)} {what}; {nearest(wanted.source, list(usable))}")
    return usable[wanted.source]


def _readable(table: Table) -> list[str]:
    return [c.name for c in table.columns if c.name not in UNSTABLE]


def _checked_by(wanted: _Join, inputs: tuple[Table, Table], place: str) -> tuple[str, ...]:
    for name in wanted.by:
        for table in inputs:
            if name not in _readable(table):
                known = nearest(name, _readable(table))
                raise ConfigurationError(
                    f"{place}: by names {shown(name)}, which is no column of {table.identifier}: {known}"
                )
        left, right = (table.schema[name] for table in inputs)
        if left != right:
            raise ConfigurationError(
                f"{place}: by names {shown(name)}, which is {left} in {inputs[0].identifier} and {right} in "
                f"{inputs[1].identifier}; it must have one type"
            )
    return tuple(dict.fromkeys(wanted.by))


def _condition(side: _Side, table: Table, place: str) -> Expression | None:
    if side.where is None:
        return None
    with open_sandbox() as connection:
        return Binder(connection, table.schema, _readable(table)).condition(side.where, f"{place}.where")


def _selected(wanted: _Join, by: tuple[str, ...], inputs: tuple[Table, Table], place: str) -> tuple[Aggregate, ...]:
    schema = {name: inputs[0].schema[name] for name in by} | {PAIRED_AT: UTC_TIME}
    for side, table in zip(wanted.sides, inputs, strict=True):
        schema |= {f"{side.name}.{name}": table.schema[name] for name in _readable(table)}
        schema[f"{side.name}_at"] = UTC_TIME
    with open_sandbox() as connection:
        binder = Binder(connection, schema, list(schema))
        return tuple(binder.value(n, text, f"{place}: select.{n}") for n, text in wanted.select.items())


def _sides(
    wanted: _Join, by: tuple[str, ...], inputs: tuple[Table, Table], select: tuple[Aggregate, ...], place: str
) -> tuple[Side, Side]:
    read = {name for a in select for name in a.expression.columns}
    left, right = (
        Side(
            side.name,
            int(number == 1 and inputs[0] is not inputs[1]),
            str(table.time),
            total_order(table, by),
            _condition(side, table, f"{place}: {key}"),
            tuple(name for name in _readable(table) if f"{side.name}.{name}" in read),
        )
        for number, (key, side, table) in enumerate(zip(("left", "right"), wanted.sides, inputs, strict=True))
    )
    return left, right


def _columns(wanted: _Join, by: tuple[str, ...], inputs: tuple[Table, Table], function: Pairing) -> tuple[Column, ...]:
    declared = {c.name: c for c in inputs[0].columns}
    times = {f"{s.name}_at": f"{t.identifier}.{t.time}" for s, t in zip(wanted.sides, inputs, strict=True)}
    origins: dict[str, tuple[str, ...]] = {n: (f"{inputs[0].identifier}.{n}",) for n in by}
    origins |= {PAIRED_AT: tuple(dict.fromkeys(times.values()))} | {n: (o,) for n, o in times.items()}
    for side, table in zip(wanted.sides, inputs, strict=True):
        origins |= {f"{side.name}.{n}": (f"{table.identifier}.{n}",) for n in _readable(table)}
    computed = (
        column(
            a.name,
            STORED_TYPES[a.stored_as],
            f"`{wanted.select[a.name]}`",
            lineage=tuple(dict.fromkeys(o for n in a.expression.columns for o in origins[n])) or origins[PAIRED_AT],
        )
        for a in function.select
    )
    return (
        *(replace(declared[name], lineage=origins[name]) for name in by),
        column(PAIRED_AT, UTC_TIME, "The smaller of the two times", required=True, lineage=origins[PAIRED_AT]),
        *(column(n, UTC_TIME, f"Time of the {n[:-3]} row", required=True, lineage=o) for n, o in times.items()),
        *computed,
    )


def _described(wanted: _Join) -> str:
    rows = (f"{s.name}: `{s.source}`" + (f" where {s.where}" if s.where else "") for s in wanted.sides)
    pairs = _MATCHES[wanted.match].format(left=wanted.left.name, right=wanted.right.name)
    return (
        f"One row a pair of {wanted.left.name} and {wanted.right.name} of one {', '.join(wanted.by)}: {pairs}, at most "
        f"{spelled(wanted.within)} apart in event time.\n\nSource: {'; '.join(rows)}."
    )


def join(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the gold table that a ``[[calculation]]`` of kind ``join`` in the file ``source`` declares.

    Pairs are emitted at once; a late row may add some and retract others.

    Raises:
        ConfigurationError: one line naming file, calculation, key, value and what is accepted.
    """
    place = f"{source}: calculation {shown(definition.get('name'))}"
    wanted = validated(_Join, definition, place)
    inputs = (_input(wanted.left, tables, f"{place}: left"), _input(wanted.right, tables, f"{place}: right"))
    by = _checked_by(wanted, inputs, place)
    select = _selected(wanted, by, inputs, place)
    left, right = _sides(wanted, by, inputs, select, place)
    function = Pairing(by, wanted.within, wanted.match, left, right, select)
    return declare(
        layer="gold",
        name=wanted.name,
        description=wanted.description or _described(wanted),
        columns=_columns(wanted, by, inputs, function),
        key=(*by, left.at, right.at),
        inputs=inputs if inputs[0] is not inputs[1] else inputs[:1],
        function=function,
        series=by,
        time=PAIRED_AT,
        window=Window(size=wanted.within, bound=wanted.within, has_finality=False),
        partitions=(Partition(PAIRED_AT, "day"),),
        sort=(PAIRED_AT, *by, left.at, right.at),
        kinds=("iceberg", "gold", "polars", "duckdb"),
        freshness=timedelta(minutes=5) + wanted.within,
        definition=hashlib.sha256(repr(function).encode()).hexdigest()[:32],
    )
