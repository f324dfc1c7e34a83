"""Side inputs: reference tables whose rows come from a file or a database of the user, kept in versions.

A version is what a source said when it was taken in, as far as it said something new. Each row is valid from
``valid_from`` up to ``valid_to``, so that an observation of an earlier time still meets the row that was right then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from assets.binding import STORED_TYPES, Binder, Name
from assets.expressions import nearest, open_sandbox
from assets.source_values import typed
from assets.table import UTC_TIME, Column, Table, column, declare
from resources.errors import ConfigurationError, SourceUnavailableError
from resources.strict_model import StrictModel, shown, validated

VALID_FROM, VALID_TO, VERSION, LOADED_AT = "valid_from", "valid_to", "version", "loaded_at"
ALWAYS = datetime(1, 1, 1, tzinfo=UTC)
"""The ``valid_from`` of rows that nothing older is known of."""

_KEPT = (
    column(VALID_FROM, UTC_TIME, "The row is right from here on; year 1 where nothing older is known", required=True),
    column(VALID_TO, UTC_TIME, "The row is right up to here, exclusive; null while it is still right"),
    column(VERSION, pl.Int64, "Version of the side input that the row came with, from 1", required=True, minimum=1),
    column(LOADED_AT, UTC_TIME, "When that version was taken in", required=True),
)
_NAMES = tuple(c.name for c in _KEPT)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Versions:
    """The function of a side input: what is stored and what the source says now in, all rows of the table out.

    Attributes:
        identifier: the table, for messages.
        key: columns that name what a row is about.
        columns: the columns of the rows and their types.
        derive: those of them that are made of the others; the source has the rest.
        told: the tables in ``references`` in, rows that they tell of the same things with their ``valid_from`` out.
        told_alone: those of the columns that no source has, but they.
    """

    identifier: str
    key: tuple[str, ...]
    columns: Mapping[str, pl.DataType]
    derive: Mapping[str, pl.Expr] = field(default_factory=dict)
    told: Callable[..., pl.DataFrame] | None = None
    told_alone: tuple[str, ...] = ()

    def beside(self, given: pl.DataFrame | None, told: pl.DataFrame) -> pl.DataFrame:
        """The rows of a source, if there is one, with what other tables tell.

        They add what the source does not name. To a source of the present they add the values that it leaves out, as
        they are told now; one that tells times is believed in all it says.
        """
        if given is None:
            return self._whole(told)
        others = told.join(given, on=list(self.key), how="anti")
        if VALID_FROM in given.columns:
            return pl.concat([given, self._whole(others)], how="diagonal").select(given.columns)
        latest = told.sort(VALID_FROM).unique(self.key, keep="last").drop(VALID_FROM)
        both = given.join(latest, on=list(self.key), how="full", coalesce=True, suffix="_told")
        values = [n for n in latest.columns if n not in self.key]
        return self._whole(both.with_columns(pl.coalesce(n, f"{n}_told") for n in values)).select(given.columns)

    def _whole(self, rows: pl.DataFrame) -> pl.DataFrame:
        absent = (pl.lit(None, t).alias(n) for n, t in self.columns.items() if n not in rows.columns)
        return rows.with_columns(*absent).with_columns(**self.derive)

    def given(self, raw: pl.DataFrame, valid_from: str | None = None, valid_to: str | None = None) -> pl.DataFrame:
        """The rows of a source in the declared types, with ``valid_from`` and ``valid_to`` where it tells them.

        Raises:
            SourceUnavailableError: a column is missing, a value is of another type, a key is missing or stands twice.
        """
        origins = {name: name for name in self.columns if name not in (*self.derive, *self.told_alone)}
        origins |= {VALID_FROM: valid_from} if valid_from else {}
        origins |= {VALID_TO: valid_to} if valid_to else {}
        rows = self._whole(typed(raw, origins, {**self.columns, VALID_FROM: UTC_TIME, VALID_TO: UTC_TIME}))
        told = [*self.key]
        if valid_from:
            rows = rows.with_columns(pl.col(VALID_FROM).fill_null(ALWAYS))
            told.append(VALID_FROM)
        for name in self.key:
            if missing := rows[name].null_count():
                raise SourceUnavailableError(f"{missing} of {rows.height} rows have no {name!r}, which names the row")
        if twice := rows.filter(rows.select(told).is_duplicated()).select(told).head(1).rows():
            values = ", ".join(f"{n} = {shown(str(v))}" for n, v in zip(told, twice[0], strict=True))
            raise SourceUnavailableError(f"{values} stands in several rows; a key may stand once")
        if valid_to and (wrong := rows.filter(pl.col(VALID_TO) <= pl.col(VALID_FROM)).height):
            raise SourceUnavailableError(f"{wrong} rows end ({valid_to!r}) no later than they start ({valid_from!r})")
        return rows

    def __call__(
        self, stored: pl.DataFrame, given: pl.DataFrame, at: datetime, number: int
    ) -> tuple[pl.DataFrame, datetime | None]:
        """All rows of the table, and since when another row is right than before; None if nothing changed.

        Args:
            stored: the rows of the table.
            given: what the source says, see ``given``.
            at: when it said so.
            number: of the version that this is, if anything changed.
        """
        stored = stored.select(*self.columns, *_NAMES)
        told = self._spans(given) if VALID_FROM in given.columns else self._now(stored, given, at, number)
        same = [*self.columns, VALID_FROM]
        known = told.join(stored.select(*same, VERSION, LOADED_AT), on=same, how="left", nulls_equal=True)
        rows = known.with_columns(pl.col(VERSION).fill_null(number), pl.col(LOADED_AT).fill_null(pl.lit(at, UTC_TIME)))
        return rows.select(*self.columns, *_NAMES), self._since(stored, rows)

    def _spans(self, given: pl.DataFrame) -> pl.DataFrame:
        """A row is right until the next of its key, or until the source says."""
        ordered = given.sort(*self.key, VALID_FROM)
        ends = [pl.col(VALID_FROM).shift(-1).over(self.key), *([pl.col(VALID_TO)] if VALID_TO in given.columns else [])]
        return ordered.with_columns(pl.min_horizontal(ends).alias(VALID_TO))

    def _now(self, stored: pl.DataFrame, given: pl.DataFrame, at: datetime, number: int) -> pl.DataFrame:
        """What is no longer said ends, and what is new begins, ``at`` that moment; the first one always was right."""
        newest = stored[VALID_FROM].max()
        moment = max(at, newest + _MICROSECOND) if isinstance(newest, datetime) else at
        begins = ALWAYS if number == 1 else moment
        kept = stored.select(*self.columns, VALID_FROM, VALID_TO)
        is_open = pl.col(VALID_TO).is_null()
        still = kept.filter(is_open).join(given, on=list(self.columns), how="semi", nulls_equal=True)
        ended = kept.filter(is_open).join(given, on=list(self.columns), how="anti", nulls_equal=True)
        new = given.join(still, on=list(self.columns), how="anti", nulls_equal=True)
        return pl.concat(
            [
                kept.filter(~is_open),
                still,
                ended.with_columns(pl.lit(moment, UTC_TIME).alias(VALID_TO)),
                new.select(
                    *self.columns, pl.lit(begins, UTC_TIME).alias(VALID_FROM), pl.lit(None, UTC_TIME).alias(VALID_TO)
                ),
            ]
        )

    def _since(self, stored: pl.DataFrame, rows: pl.DataFrame) -> datetime | None:
        same = [*self.columns, VALID_FROM]
        changed = [
            a.join(b, on=same, how="anti", nulls_equal=True)[VALID_FROM].min()
            for a, b in ((stored, rows), (rows, stored))
        ]
        ends = stored.join(rows, on=same, how="inner", nulls_equal=True, suffix="_new").filter(
            pl.col(VALID_TO).ne_missing(pl.col(f"{VALID_TO}_new"))
        )
        changed.append(ends.select(pl.min_horizontal(VALID_TO, f"{VALID_TO}_new").min()).item())
        return min((found for found in changed if isinstance(found, datetime)), default=None)


def side_input(
    *,
    name: str,
    description: str,
    key: tuple[str, ...],
    columns: tuple[Column, ...],
    derived: tuple[Column, ...] = (),
    derive: Mapping[str, pl.Expr] | None = None,
    told: Callable[..., pl.DataFrame] | None = None,
    told_alone: tuple[Column, ...] = (),
    **rest: Any,
) -> Table:
    """Builds a reference table whose rows come from ``[[reference]]`` of that name.

    ``columns`` are those of the source, ``derived`` what ``derive`` makes of them; ``told`` see ``Versions``.
    """
    types = {
        c.name: c.dtype if isinstance(c.dtype, pl.DataType) else c.dtype() for c in (*columns, *told_alone, *derived)
    }
    return declare(
        layer="reference",
        name=name,
        description=description,
        columns=(*columns, *told_alone, *derived, *_KEPT),
        key=(*key, VALID_FROM),
        function=Versions(f"reference.{name}", key, types, derive or {}, told, tuple(c.name for c in told_alone)),
        kinds=("iceberg", "reference"),
        **rest,
    )


class _Definition(StrictModel):
    """What ``[[reference]]`` says of the table; where its rows come from is told elsewhere."""

    name: Annotated[Name, Field(max_length=100)]
    description: Annotated[str, Field(min_length=1)] | None = None
    key: Annotated[list[Name], Field(min_length=1)]
    columns: Annotated[dict[Name, str], Field(min_length=1)]


def reference(definition: Mapping[str, Any], tables: Mapping[str, Table], source: str) -> Table:
    """Builds the table that a ``[[reference]]`` of the file ``source`` declares, or returns the built-in one it fills.

    Raises:
        ConfigurationError: one line naming file, reference, key, value and what is accepted.
    """
    place = f"{source}: reference {shown(definition.get('name'))}"
    given = {key: value for key, value in definition.items() if value is not None and key != "source"}
    identifier = f"reference.{given.get('name')}"
    if identifier in tables:
        return _built_in(given, tables[identifier], place)
    fillable = ", ".join(sorted(t.name for t in tables.values() if isinstance(t.function, Versions)))
    for option in ("key", "columns"):
        if option not in given:
            raise ConfigurationError(
                f"{place}: {option} is missing; only the built-in ones ({fillable}) have it already; "
                "write key = ['device_id'], columns = {device_id = 'BIGINT', owner = 'VARCHAR'}"
            )
    wanted = validated(_Definition, given, place)
    for name in wanted.key:
        if name not in wanted.columns:
            raise ConfigurationError(
                f"{place}: key names {shown(name)}, which is no column: {nearest(name, list(wanted.columns))}"
            )
    if taken := sorted({*_NAMES, "batch_id"} & wanted.columns.keys()):
        raise ConfigurationError(f"{place}: columns.{taken[0]} has the name of a column that every reference has")
    with open_sandbox() as connection:
        binder = Binder(connection, {}, [])
        types = {n: STORED_TYPES[binder.stored(t, f"{place}: columns.{n}")] for n, t in wanted.columns.items()}
    made = (column(n, t, f"`{n}` of the source", required=n in wanted.key) for n, t in types.items())
    described = (
        f"One row a {', '.join(wanted.key)} and time in which it was right.\n\nSource: {definition.get('source')}."
    )
    return side_input(
        name=wanted.name,
        description=wanted.description or described,
        key=tuple(dict.fromkeys(wanted.key)),
        columns=tuple(made),
    )


def _built_in(given: Mapping[str, Any], table: Table, place: str) -> Table:
    if not isinstance(table.function, Versions):
        raise ConfigurationError(f"{place}: {table.identifier} is built in and has another source; choose another name")
    for option in ("key", "columns"):
        if option in given:
            fixed = ", ".join(table.function.key if option == "key" else table.function.columns)
            raise ConfigurationError(
                f"{place}: {option} is that of the built-in table ({fixed}); leave it out, or choose another name"
            )
    return table
