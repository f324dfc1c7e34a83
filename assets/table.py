"""The declaration of a table: everything else about it is derived from this."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from inspect import cleandoc
from typing import Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa

from assets.look_back import LookBack
from resources.errors import ConfigurationError
from resources.selection import Where
from resources.stored_table import Partition, StoredTable

Layer = Literal["bronze", "silver", "gold", "reference", "ops", "quarantine", "quality"]
Step = Literal["take", "decode", "compute", "state"]
UTC_TIME = pl.Datetime("us", "UTC")
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Column:
    """One column: its type, what it means, what it may hold, and where it comes from.

    ``lineage`` names upstream columns as ``layer.table.column``; a required column may not be null;
    ``minimum`` and ``maximum`` are inclusive bounds.
    """

    name: str
    dtype: pl.DataType | type[pl.DataType]
    description: str
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    lineage: tuple[str, ...] = ()


def column(
    name: str,
    dtype: pl.DataType | type[pl.DataType],
    description: str,
    *,
    required: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    lineage: str | tuple[str, ...] = (),
) -> Column:
    """Returns a ``Column``; ``lineage`` may be one name or several."""
    names = (lineage,) if isinstance(lineage, str) else lineage
    return Column(name, dtype, description, required, minimum, maximum, names)


class Outputs(NamedTuple):
    """What a function that decodes returns.

    ``rows`` has the declared columns plus ``stream, sequence, row`` (the landing position of the bronze row).
    ``rejects`` has ``stream, sequence, row, reason, message``: one line for each bronze row that cannot be used.
    """

    rows: pl.DataFrame
    rejects: pl.DataFrame


@dataclass(frozen=True)
class Window:
    """How a table that is computed per series and time is kept right in any order of arrival.

    Windows of ``size`` start every ``slide`` (else every ``size``) from 1970 on; rows of size 0 are moments. An input
    row at t changes the rows of its series whose window meets [t - reach_back, t + reach_ahead]; to compute a window,
    input from one reach before its start to one reach behind its end is read. With ``gap`` they are sessions, and
    ``size`` is the longest run of rows that is one. With ``bound`` the rows are pairs of input rows at most that far
    apart, and time is the smaller of their times. With ``has_episodes`` they are episodes, as long as a condition
    holds: it must hold for ``size`` to count, and ``reach_ahead`` behind a row that no other follows one begins.
    ``lateness`` is how long a window waits after its end (column ``window_end``) has been passed by its sender's
    watermark before it is final. ``has_finality`` tables carry ``is_final, revision, corrected_at``.
    """

    size: timedelta
    slide: timedelta | None = None
    gap: timedelta | None = None
    bound: timedelta | None = None
    reach_back: timedelta = timedelta(0)
    reach_ahead: timedelta = timedelta(0)
    lateness: timedelta = timedelta(0)
    has_finality: bool = True
    has_episodes: bool = False

    @property
    def before(self) -> timedelta:
        """How far before a row's time its input may lie."""
        if self.gap is not None:
            return self.size + 2 * self.gap
        return self.bound or self.reach_ahead + (MINUTE if self.has_episodes else timedelta(0))

    @property
    def behind(self) -> timedelta:
        """How far behind a row's time its input may lie."""
        if self.gap is not None:
            return 2 * self.size + 3 * self.gap
        if self.has_episodes:
            return self.before
        return 2 * self.bound if self.bound else self.size + self.reach_back


@dataclass(frozen=True)
class Table:
    """A declared table.

    Attributes:
        key: columns that name a row; no two rows share them.
        series: columns that name a series; the state of a calculation never crosses one.
        time: the column of event time (silver: of the row; gold: the window's start).
        topics: decoded tables only: filters of the MQTT topics that the function reads, where it names them itself.
        value: decoded tables only: columns in which two rows of one key may not differ (else ``key_conflict``).
        sender: the columns that name who sent the row; each sender has a watermark of its own.
        references: tables given whole to the function, by keyword of their name.
        configuration: reference only: the list in secchi.toml whose entries, as dictionaries, the function is given.
        takes_users: whether the SNMPv3 users of the configuration are given to the function, as ``users``.
        repeats_within: how long after a row the same one may be sent again, and is known as a duplicate when decoded.
        model: name of the anomaly model given to the function as ``model``; None for none.
        final_only: whether only final rows of the input are used.
        reads: computed tables only: the columns of the inputs that the function reads; all of them if empty.
        only: computed tables only: conditions on the rows of the inputs, where those have the column.
        look_back: computed tables of one input only: how little of the past is read where that is enough.
        definition: changes when the function would give another result for the same rows; the table is rebuilt then.
        function: the pure function, or None (bronze and side outputs have none).
    """

    layer: Layer
    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    function: Callable[..., Any] | None = None
    inputs: tuple["Table", ...] = ()
    references: tuple["Table", ...] = ()
    configuration: str | None = None
    takes_users: bool = False
    repeats_within: timedelta = timedelta(0)
    model: str | None = None
    series: tuple[str, ...] = ()
    time: str | None = None
    topics: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    sender: tuple[str, ...] = ()
    window: Window | None = None
    final_only: bool = False
    reads: tuple[str, ...] = ()
    only: tuple[Where, ...] = ()
    look_back: LookBack | None = None
    definition: str = ""
    partitions: tuple[Partition, ...] = ()
    sort: tuple[str, ...] = ()
    landing: pa.Schema | None = None
    owner: str = "team:telemetry"
    kinds: tuple[str, ...] = ("iceberg", "polars")
    freshness: timedelta | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        """``layer.table``: the Iceberg identifier, and with a slash the Dagster asset key."""
        return f"{self.layer}.{self.name}"

    @property
    def step(self) -> Step | None:
        """What a micro-batch does for the table, by what it declares; None where others write it.

        take: what landed becomes rows. decode: each input row becomes rows, once. compute: spans of series are computed
        from all their input whenever it changes. state: the function tells all rows.
        """
        if self.landing is not None:
            return "take"
        if self.window is not None:
            return "compute"
        if self.inputs:
            return "decode"
        return None if self.function is None else "state"

    @property
    def watermarked(self) -> "Table":
        """The table whose commits raise the watermarks of this one's senders: the first that is decoded."""
        return self.inputs[0].watermarked if self.step == "compute" else self

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column name to polars type, in stored order."""
        return {c.name: c.dtype if isinstance(c.dtype, pl.DataType) else c.dtype() for c in self.columns}

    @property
    def stored(self) -> StoredTable:
        """The storage view of this declaration, for ``resources.lakehouse``."""
        return StoredTable(
            self.layer,
            self.name,
            self.schema,
            self.partitions,
            self.sort or self.key,
            frozenset(self._wide()),
            frozenset(self._required()),
        )

    def _required(self) -> set[str]:
        """Columns that rows of an earlier version must have; a table that is computed anew needs none."""
        is_made_anew = bool(self.definition) or self.layer == "reference"
        return set() if is_made_anew else {c.name for c in self.columns if c.required}

    def _wide(self) -> set[str]:
        return {name for name, dtype in self.schema.items() if dtype == pl.Binary}


_BATCH = column("batch_id", pl.Int64, "Number of the commit that wrote this row; readers follow it", required=True)
_POSITION = (
    column("stream", pl.String, "Landing stream: collector/epoch", required=True),
    column("sequence", pl.Int64, "Number of the landing segment within its stream", required=True),
    column("row", pl.Int32, "Row within the landing segment, from 0", required=True),
)
_INGESTED = column("ingested_at", UTC_TIME, "When the row was taken from landing into bronze", required=True)
_FINALITY = (
    column("is_final", pl.Boolean, "Whether the watermark has passed the window's end and lateness", required=True),
    column("revision", pl.Int32, "How often the row changed after it was final", required=True, minimum=0),
    column("corrected_at", UTC_TIME, "When the last change after finality was made; null if there was none"),
)
_RETRACTED = column(
    "is_retracted",
    pl.Boolean,
    "Whether the key is there no more (a session that was merged, say); views hide such rows; null is no",
)


def _engine_columns(layer: Layer, window: Window | None, upstream: tuple[Table, ...]) -> tuple[Column, ...]:
    if layer == "bronze":
        return (*_POSITION, _INGESTED, _BATCH)
    if layer == "silver" and window is None:
        origin = upstream[0].identifier if upstream else None
        return (
            *(replace(c, lineage=(f"{origin}.{c.name}",)) if origin else c for c in _POSITION),
            _BATCH,
        )
    if window:
        return (*(_FINALITY if window.has_finality else ()), _RETRACTED, _BATCH)
    return (_BATCH,)


def declare(
    *,
    layer: Layer,
    name: str,
    description: str,
    columns: tuple[Column, ...],
    key: tuple[str, ...],
    inputs: tuple[Table, ...] = (),
    window: Window | None = None,
    **rest: Any,
) -> Table:
    """Builds a ``Table`` with the columns that the engine adds to its layer, and checks that names agree.

    Raises:
        ConfigurationError: if a name in key, series, time, value, sender or sort is no column.
    """
    every = (*columns, *_engine_columns(layer, window, inputs))
    table = Table(
        layer=layer,
        name=name,
        description=cleandoc(description),
        columns=every,
        key=key,
        inputs=inputs,
        window=window,
        **rest,
    )
    names = {c.name for c in every}
    used = {*table.key, *table.series, *table.value, *table.sort, *table.sender, table.time} - {None}
    if missing := sorted(str(n) for n in used if n not in names):
        raise ConfigurationError(f"{table.identifier}: {missing[0]!r} is no column; columns are {sorted(names)}")
    return table


def table(**declaration: Any) -> Callable[[Callable[..., Any]], Table]:
    """Decorator: the function's name is the table's name, its docstring the description. See ``declare``."""

    def build(function: Callable[..., Any]) -> Table:
        return declare(name=function.__name__, description=function.__doc__ or "", function=function, **declaration)

    return build
