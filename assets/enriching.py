"""Declared lookups: a ``[[calculation]]`` of kind ``lookup`` gives each row what a side input says of it."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from assets.binding import STORED_TYPES, UNSTABLE, Binder, Name
from assets.expressions import nearest, open_sandbox
from assets.lookups import Bound, Enriched, LookupDefinition, Selection, bind
from assets.table import MINUTE, Column, Table, Window, column, declare
from resources.errors import ConfigurationError
from resources.stored_table import Partition
from resources.strict_model import StrictModel, shown, validated


class _Enrichment(StrictModel):
    """``[[calculation]]`` of kind ``lookup``."""

    name: Name
    kind: Literal["lookup"]
    description: Annotated[str, Field(min_length=1)] | None = None
    source: Annotated[str, Field(alias="from")]
    where: str | None = None
    lookup: Annotated[list[LookupDefinition], Field(min_length=1)]
    select: Annotated[dict[Name, str], Field(min_length=1)]

    @model_validator(mode="after")
    def _free_names(self) -> "_Enrichment":
        taken = {*UNSTABLE, *(f"{each.name}_version" for each in self.lookup)}
        if same := sorted(taken & self.select.keys()):
            raise ValueError(f"select.{same[0]} has the name of a column that every row has; choose another")
        return self


def _upstream(wanted: _Enrichment, tables: Mapping[str, Table], place: str) -> Table:
    layers = ("silver", "gold")
    usable = {n: t for n, t in sorted(tables.items()) if t.layer in layers and t.time and t.series}
    if wanted.source not in usable:
        what = "is not a silver or gold table" if wanted.source in tables else "is no table"
        raise ConfigurationError(
            f"{place}: from: {shown(wanted.source)} {what}; {nearest(wanted.source, list(usable))}"
        )
    return usable[wanted.source]


def _selected(wanted: _Enrichment, upstream: Table, kept: tuple[str, ...], bound: Bound, place: str) -> Selection:
    names = [c.name for c in upstream.columns if c.name not in UNSTABLE]
    schema = {**{n: upstream.schema[n] for n in names}, **bound.schema}
    if taken := sorted(wanted.select.keys() & {*kept}):
        raise ConfigurationError(f"{place}: select.{taken[0]} has the name of a column of the key; choose another")
    with open_sandbox() as connection:
        binder = Binder(connection, schema, list(schema))
        where = binder.condition(wanted.where, f"{place}: where") if wanted.where else None
        texts = {**wanted.select, **bound.versions}
        return Selection(kept, where, tuple(binder.value(n, t, f"{place}: select.{n}") for n, t in texts.items()))


def _columns(wanted: _Enrichment, upstream: Table, bound: Bound, selection: Selection) -> tuple[Column, ...]:
    origin, declared = upstream.identifier, {c.name: c for c in upstream.columns}
    computed = (
        column(
            a.name,
            STORED_TYPES[a.stored_as],
            f"`{wanted.select[a.name]}`" if a.name in wanted.select else "Version that the row took; null if none",
            lineage=tuple(bound.lineage.get(n, f"{origin}.{n}") for n in a.expression.columns)
            or f"{origin}.{upstream.time}",
        )
        for a in selection.select
    )
    return (*(replace(declared[n], lineage=(f"{origin}.{n}",)) for n in selection.kept), *computed)


def _described(wanted: _Enrichment) -> str:
    rows = f"`{wanted.source}`" + (f" where {wanted.where}" if wanted.where else "")
    beside = ", ".join(f"`{each.source}` ({each.version.replace('_', ' ')})" for each in wanted.lookup)
    return f"One row a row of {rows}, with what is known of it.\n\nSource: {rows}, {beside}."


def enrichment(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the gold table that a ``[[calculation]]`` of kind ``lookup`` in the file ``source`` declares.

    Raises:
        ConfigurationError: one line naming file, calculation, key, value and what is accepted.
    """
    place = f"{source}: calculation {shown(definition.get('name'))}"
    wanted = validated(_Enrichment, definition, place)
    upstream = _upstream(wanted, tables, place)
    time = str(upstream.time)
    names = [c.name for c in upstream.columns if c.name not in UNSTABLE]
    bound = bind(wanted.lookup, upstream, names, tables, place)
    kept = tuple(dict.fromkeys([*upstream.series, *upstream.key, time]))
    selection = _selected(wanted, upstream, kept, bound, place)
    function: Enriched = bound.enriched(selection, time)
    return declare(
        layer="gold",
        name=wanted.name,
        description=wanted.description or _described(wanted),
        columns=_columns(wanted, upstream, bound, selection),
        key=upstream.key,
        inputs=(upstream,),
        references=bound.references,
        function=function,
        series=upstream.series,
        time=time,
        # A row depends on no other; the bound makes one span of rows that come one after the other.
        window=Window(size=MINUTE, bound=MINUTE, has_finality=False),
        partitions=(Partition(time, "day"),),
        sort=tuple(dict.fromkeys([time, *upstream.key])),
        kinds=("iceberg", "gold", "polars", "duckdb"),
        freshness=timedelta(minutes=5) + (upstream.freshness or timedelta(0)),
        definition=hashlib.sha256(repr(function).encode()).hexdigest()[:32],
    )
