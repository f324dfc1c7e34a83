"""Declared calculations: a ``[[calculation]]`` of TOML becomes a gold table like one that is written in Python."""

import hashlib
import importlib.util
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, Field, field_validator, model_validator

from assets.aggregation import Aggregation, UserFunction, Windowed
from assets.binding import STORED_TYPES, UNSTABLE, Binder, Name, total_order
from assets.enriching import enrichment
from assets.expressions import Expression, nearest, open_sandbox
from assets.joining import join, sources_of
from assets.lookups import Bound, Enriched, LookupDefinition, bind
from assets.settling import has_senders, is_tumbling, settled_behind
from assets.table import MINUTE, UTC_TIME, Column, Table, column, declare
from assets.windowing import END, HELD, SECONDS, START, Windowing
from resources.durations import Duration, spelled
from resources.errors import ConfigurationError
from resources.stored_table import Partition
from resources.strict_model import StrictModel, shown, validated

_RESERVED = UNSTABLE | {START, END, UserFunction.VERSION}


def _not_negative(value: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError(f"must not be negative, got {value.total_seconds():g} s")
    return value


class _Definition(StrictModel):
    """``[[calculation]]`` over windows."""

    kind: Literal["window"] = "window"
    name: Name
    description: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(alias="from")]
    where: str | None = None
    by: Annotated[list[str], Field(min_length=1)]
    window: Windowing
    lateness: Annotated[Duration, AfterValidator(_not_negative)] = timedelta(0)
    lookup: list[LookupDefinition] = []
    aggregate: Annotated[dict[Name, str], Field(min_length=1)] | None = None
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    columns: Annotated[dict[Name, str], Field(min_length=1)] | None = None

    @field_validator("aggregate", "columns")
    @classmethod
    def _free_names(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted(_RESERVED & value.keys()):
            raise ValueError(f"may not be named {taken[0]!r}; every window has a column of that name")
        return value

    @model_validator(mode="after")
    def _computes_something(self) -> "_Definition":
        if (self.aggregate is None) == (self.function is None):
            raise ValueError("aggregate is missing; it, or function and columns, say what is computed (not both)")
        if self.function and self.lookup:
            raise ValueError("lookup is for aggregate; look up in a calculation of kind = 'lookup' what function needs")
        if same := sorted({f"{each.name}_version" for each in self.lookup} & {*(self.aggregate or {}), *self.by}):
            raise ValueError(f"{same[0]!r} is the column that keeps the version of a lookup; choose another name")
        if (self.function is None) != (self.columns is None):
            raise ValueError("columns must say what function returns: {name = 'DOUBLE'}; the two come together")
        return self


def _described(wanted: _Definition) -> str:
    rows = f"of `{wanted.source}`" + (f" where {wanted.where}" if wanted.where else "")
    return f"One row a series ({', '.join(wanted.by)}) and {wanted.window}.\n\nSource: rows {rows}."


def _check_fit(wanted: _Definition, upstream: Table, place: str) -> None:
    """Windows that are made of tumbling ones hold each of them whole."""
    if upstream.time == START and (wanted.function or wanted.window.kind == "session"):
        raise ConfigurationError(
            f"{place}: from {upstream.identifier}, which has windows, only tumbling or sliding ones can be aggregated"
        )
    if upstream.window is None or not is_tumbling(upstream):
        return
    size = upstream.window.size
    for name, span in (("size", wanted.window.length), ("slide", wanted.window.slide_or_size)):
        if span % size:
            raise ConfigurationError(
                f"{place}: window.{name} must be a multiple of the {spelled(size)} of {upstream.identifier}, "
                f"got {spelled(span)}"
            )


def _is_usable(table: Table) -> bool:
    """Whether it has rows of senders, each with a time of its own; windows that overlap would count them twice."""
    is_moving = table.window is not None and (table.window.slide is not None or table.window.has_episodes)
    return table.layer in ("silver", "gold") and has_senders(table) and not is_moving


def _upstream(wanted: _Definition, tables: Mapping[str, Table], place: str) -> Table:
    usable = {n: t for n, t in sorted(tables.items()) if t.time and _is_usable(t)}
    if wanted.source not in usable:
        what = "has no rows that windows can be made of" if wanted.source in tables else "is no table"
        raise ConfigurationError(
            f"{place}: from: {shown(wanted.source)} {what}; {nearest(wanted.source, list(usable))}"
        )
    return usable[wanted.source]


def _checked_by(wanted: _Definition, upstream: Table, names: list[str], place: str) -> tuple[str, ...]:
    for name in wanted.by:
        if name not in names:
            raise ConfigurationError(f"{place}: by names {shown(name)}, which is no column: {nearest(name, names)}")
    key, computed = ("aggregate", wanted.aggregate) if wanted.aggregate else ("columns", wanted.columns or {})
    if taken := computed.keys() & {*wanted.by}:
        raise ConfigurationError(f"{place}: {key}.{min(taken)} has the name of a column in by; choose another")
    return tuple(dict.fromkeys(wanted.by))


def _computed_columns(
    wanted: _Definition,
    upstream: Table,
    where: Expression | None,
    function: Windowed,
    types: Mapping[str, str],
    bound: Bound,
) -> tuple[Column, ...]:
    origin, looked_up = upstream.identifier, bound.lineage
    condition = where.columns if where else ()
    limited = f" where {wanted.where}" if where else ""
    time = f"{origin}.{upstream.time}"
    if isinstance(function, UserFunction):
        what, origins = (
            f"Computed by `{wanted.function}`{limited}",
            tuple(f"{origin}.{c.name}" for c in upstream.columns),
        )
        told = column(
            UserFunction.VERSION, pl.String, "SHA-256 of the function's source, its first half", required=True
        )
        return (*(column(n, STORED_TYPES[t], what, lineage=origins) for n, t in types.items()), told)
    assert isinstance(function, Aggregation) and wanted.aggregate is not None
    return tuple(
        column(
            a.name,
            STORED_TYPES[a.stored_as],
            f"`{wanted.aggregate[a.name]}`{limited}"
            if a.name in wanted.aggregate
            else "Newest version that a row of the window took; null if none did",
            required=a.expression.never_null,
            lineage=tuple(
                dict.fromkeys(
                    [
                        *(looked_up.get(n, f"{origin}.{n}") for n in (*a.expression.columns, *condition)),
                        *([time] if a.expression.derived & {SECONDS, HELD} else []),
                    ]
                )
            )
            or time,
        )
        for a in function.aggregates
    )


def _columns(upstream: Table, by: tuple[str, ...], computed: tuple[Column, ...]) -> tuple[Column, ...]:
    origin, declared = upstream.identifier, {c.name: c for c in upstream.columns}
    time = f"{origin}.{upstream.time}"
    return (
        *(replace(declared[name], lineage=(f"{origin}.{name}",)) for name in by),
        column(
            START, UTC_TIME, "Start of the window, UTC; rows at it belong to the window", required=True, lineage=time
        ),
        column(
            END, UTC_TIME, "End of the window, UTC; rows at it do not belong to the window", required=True, lineage=time
        ),
        *computed,
    )


def _function(
    wanted: _Definition, upstream: Table, by: tuple[str, ...], bound: Bound, place: str, folder: Path
) -> tuple[Windowed, dict[str, str]]:
    """What computes the table, and the stored types of its columns."""
    shape = (by, str(upstream.time), total_order(upstream, by), wanted.window)
    _check_fit(wanted, upstream, place)
    names = [name for name in _readable(upstream) if upstream.window is None or name not in (START, END)]
    with open_sandbox() as connection:
        binder = Binder(connection, {**upstream.schema, **bound.schema}, [*names, *bound.schema])
        where = binder.condition(wanted.where, f"{place}: where") if wanted.where else None
        if wanted.aggregate:
            found = [binder.aggregate(n, t, f"{place}: aggregate.{n}") for n, t in wanted.aggregate.items()]
            found += [binder.aggregate(n, f"max({t})", f"{place}: lookup") for n, t in bound.versions.items()]
            return Aggregation(*shape, where, tuple(found)), {a.name: a.stored_as for a in found}
        types = {n: binder.stored(t, f"{place}: columns.{n}") for n, t in (wanted.columns or {}).items()}
    module, _, name = str(wanted.function).partition(":")
    function = UserFunction(*shape, where, f"gold.{wanted.name}", module, name, str(folder), tuple(types))
    try:
        function.load()
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from error
    return function, types


def _readable(upstream: Table) -> list[str]:
    return [c.name for c in upstream.columns if c.name not in UNSTABLE]


def _fingerprint(function: Windowed | Enriched) -> str:
    """Changes when the same rows may give another result."""
    version = function.version if isinstance(function, UserFunction) else ""
    told = repr(replace(function, folder="")) if isinstance(function, UserFunction) else repr(function)
    told = re.sub(r"frozenset\(\{(.*?)\}\)", lambda found: " ".join(sorted(found[1].split(", "))), told)
    return hashlib.sha256(f"{told} {version}".encode()).hexdigest()[:32]


def calculation(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the gold table that a ``[[calculation]]`` of the file ``source`` declares over one of ``tables``.

    Expressions are SQL in DuckDB's dialect (see ``assets.expressions``). The table's function takes rows of the source
    table in any order; the same rows give the same bits. Modules of functions are looked for beside ``source``, too.

    Raises:
        ConfigurationError: one line naming file, calculation, key, value and what is accepted.
    """
    if definition.get("kind") == "join":
        return join(definition, tables, source)
    if definition.get("kind") == "lookup":
        return enrichment(definition, tables, source)
    wanted = validated(_Definition, definition, f"{source}: calculation {shown(definition.get('name'))}")
    place = f"{source}: calculation {wanted.name!r}"
    upstream = _upstream(wanted, tables, place)
    names = _readable(upstream)
    by = _checked_by(wanted, upstream, names, place)
    bound = bind(wanted.lookup, upstream, names, tables, place)
    windowed, types = _function(wanted, upstream, by, bound, place, Path(source).absolute().parent)
    function: Windowed | Enriched = windowed
    if bound.tables and isinstance(windowed, Aggregation):
        function = bound.enriched(windowed, str(upstream.time))
    window, settled = wanted.window, settled_behind(upstream)
    if upstream.window is not None and is_tumbling(upstream):  # the last one ends with the window, not behind it
        settled -= upstream.window.size
    lateness = max(wanted.lateness, settled)
    return declare(
        layer="gold",
        name=wanted.name,
        description=wanted.description or _described(wanted),
        columns=_columns(upstream, by, _computed_columns(wanted, upstream, windowed.where, windowed, types, bound)),
        key=(*by, START),
        inputs=(upstream,),
        references=bound.references,
        function=function,
        series=by,
        time=START,
        window=window.reach(lateness),
        partitions=(Partition(START, "hour" if window.slide_or_size <= MINUTE else "day"),),
        kinds=("iceberg", "gold", "duckdb" if wanted.aggregate else "python"),
        freshness=timedelta(minutes=5) + window.length + lateness,
        definition=_fingerprint(function),
    )


def _declared(identifier: str) -> dict[str, Table]:
    """The table of that name among those that ship, by name; empty if there is none."""
    layer, _, name = identifier.partition(".")
    if layer == "gold" and name in built_in_names():
        return {identifier: built_in(name)}
    if not name.isidentifier() or importlib.util.find_spec(f"assets.{layer}") is None:
        return {}
    if importlib.util.find_spec(f"assets.{layer}.{name}") is None:
        return {}
    return {identifier: getattr(importlib.import_module(f"assets.{layer}.{name}"), name)}


def built_in_names() -> list[str]:
    """The calculations that ship, one file each in ``assets/gold``."""
    return sorted(f.name.removesuffix(".toml") for f in files("assets.gold").iterdir() if f.name.endswith(".toml"))


@cache
def built_in(name: str) -> Table:
    """Returns the table of ``assets/gold/<name>.toml``; the same object each time.

    Raises:
        ConfigurationError: the file does not declare exactly that table, or has a mistake.
    """
    source = f"assets/gold/{name}.toml"
    definitions = tomllib.loads(files("assets.gold").joinpath(f"{name}.toml").read_text("utf-8")).get("calculation", [])
    found = [d.get("name") for d in definitions]
    if found != [name]:
        raise ConfigurationError(f"{source}: must declare one calculation, named {name!r} like the file; got {found}")
    upstream = {k: t for origin in sources_of(definitions[0]) for k, t in _declared(origin).items()}
    return calculation(definitions[0], upstream, source)
