"""Episodes: how long a condition holds in a series of rows, told from the rows in any order of arrival.

What a row says holds until the next row of its series says otherwise. ``raises`` begins an episode, ``clears`` ends it,
a row that meets neither changes nothing (hysteresis); a row for which neither is known says nothing. With ``silence``
the episode begins that long behind a row that no other follows, and the next row ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from assets.aggregation import Aggregate, chosen
from assets.expressions import Expression, evaluate
from assets.table import UTC_TIME

PENDING, RAISED, CLEARED, IS_OPEN = "pending_at", "raised_at", "cleared_at", "is_open"
AT, IS_ON = "at", "is_on"
_SERIES = "_series"
_TOLD = ("message", "cause")


@dataclass(frozen=True)
class Condition:
    """The function of a threshold. Callable, and picklable so that it can be sent to a worker.

    Attributes:
        name: of the threshold.
        source: identifier of the table that it watches.
        severity: of its events.
        by: columns that name a series.
        time: the source's column of event time.
        order: columns that order the rows of a series totally, ``time`` first; of rows of one time the last counts.
        where: condition on rows of the source.
        state: true where an episode begins or goes on, false where none is, null where the row changes nothing; None
            with ``silence``.
        silence: how long no row may come.
        waits: how long an episode must last to be raised.
        message: the text, from the row that began the episode.
        cause: columns of that row that are kept beside it.
    """

    name: str
    source: str
    severity: str
    by: tuple[str, ...]
    time: str
    order: tuple[str, ...]
    where: Expression | None
    state: Expression | None
    silence: timedelta
    waits: timedelta
    message: Aggregate
    cause: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that it needs."""
        expressions = [e for e in (self.where, self.state, self.message.expression) if e]
        named = (name for e in expressions for name in e.columns)
        return tuple(dict.fromkeys([*self.by, *self.order, *named, *self.cause]))

    def entries(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The times at which the state of a series may change: by, ``at, is_on``, message and cause where it is on.

        With ``silence`` a time at which it begins is right only if the rows up to it were given.
        """
        if self.where:
            rows = rows.filter(chosen(rows, self.where))
        if self.state:
            rows = rows.with_columns(self._ask(rows, self.state.sql).cast(pl.Boolean).alias(IS_ON))
            rows = rows.filter(pl.col(IS_ON).is_not_null())
        ordered = rows.sort(*self.by, *self.order).unique([*self.by, self.time], keep="last", maintain_order=True)
        timed = ordered.with_columns(pl.col(self.time).alias(AT))
        ordered = timed if self.state else self._silences(timed)
        is_on = pl.col(IS_ON)
        on, off = ordered.filter(is_on), ordered.filter(~is_on)
        cause = on.select(pl.struct(self.cause).struct.json_encode().alias("cause"))
        told = on.select(*self.by, AT, IS_ON).with_columns(self._ask(on, self.message.expression.sql).alias("message"))
        untold = off.select(*self.by, AT, IS_ON, *(pl.lit(None, pl.String).alias(n) for n in _TOLD))
        return pl.concat([told.hstack(cause), untold])

    def _silences(self, ordered: pl.DataFrame) -> pl.DataFrame:
        """Each row, and a silence behind those that nothing follows in time."""
        is_same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift(-1)) for c in self.by)
        behind = pl.col(self.time) + self.silence
        is_last = ~(is_same & (pl.col(self.time).shift(-1) <= behind)).fill_null(False)
        silent = ordered.filter(is_last).with_columns(behind.alias(AT), pl.lit(True).alias(IS_ON))
        return pl.concat([ordered.with_columns(pl.lit(False).alias(IS_ON)), silent])

    def _ask(self, rows: pl.DataFrame, sql: str) -> pl.Series:
        given = rows.select(pl.col(n) for n in rows.columns if n in self.reads)
        return evaluate(f"SELECT {sql} AS found FROM input", given).to_series()

    def episodes(self, entries: pl.DataFrame) -> pl.DataFrame:
        """One row an episode, raised if it has ended late enough. Of entries of one time the first counts."""
        line = _in_order(entries, self.by)
        is_first = pl.col(_SERIES) != pl.col(_SERIES).shift(1)
        was_on = pl.when(is_first.fill_null(True)).then(False).otherwise(pl.col(IS_ON).shift(1))
        turns = line.filter(pl.col(IS_ON) != was_on)
        is_last = (pl.col(_SERIES) != pl.col(_SERIES).shift(-1)).fill_null(True)
        turns = turns.with_columns(pl.when(~is_last).then(pl.col(AT).shift(-1)).alias(CLEARED))
        names = pl.concat_str([pl.col(c).cast(pl.String).fill_null("") for c in self.by], separator="/")
        lasted = pl.col(CLEARED) > pl.col(AT) + self.waits
        return turns.filter(IS_ON).select(
            pl.lit(self.name).alias("threshold"),
            names.alias("series"),
            *self.by,
            pl.col(AT).alias(PENDING),
            pl.when(lasted).then(pl.col(AT) + self.waits).cast(UTC_TIME).alias(RAISED),
            CLEARED,
            pl.col(CLEARED).is_null().alias(IS_OPEN),
            pl.lit(self.severity).alias("severity"),
            "message",
            pl.lit(self.source).alias("source"),
            "cause",
        )

    def boundaries(self, episodes: pl.DataFrame) -> pl.DataFrame:
        """The entries that give these episodes."""
        starts = episodes.select(*self.by, pl.col(PENDING).alias(AT), pl.lit(True).alias(IS_ON), *_TOLD)
        ends = episodes.filter(pl.col(CLEARED).is_not_null()).select(
            *self.by,
            pl.col(CLEARED).alias(AT),
            pl.lit(False).alias(IS_ON),
            *(pl.lit(None, pl.String).alias(n) for n in _TOLD),
        )
        return pl.concat([starts, ends])

    def __call__(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The episodes of rows before which there was none."""
        return self.episodes(self.entries(rows))


def _in_order(entries: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Entries by series (numbered) and time; one a time."""
    ordered = entries.sort(*by, AT, maintain_order=True).unique([*by, AT], keep="first", maintain_order=True)
    return ordered.with_columns(pl.struct(by).rle_id().alias(_SERIES))


def states(entries: pl.DataFrame, ends: pl.DataFrame, by: Sequence[str], at: str) -> pl.Series:
    """For each row of ``ends`` whether the state of its series is on at the time ``at``; it is off before any entry."""
    keys = pl.concat([entries.select(by), ends.select(by)]).unique().with_row_index(_SERIES)
    numbered = _in_order(entries, by).drop(_SERIES).join(keys, on=list(by), how="left", nulls_equal=True)
    asked = ends.with_row_index("_row").join(keys, on=list(by), how="left", nulls_equal=True)
    found = asked.sort(at).join_asof(
        numbered.sort(AT).select(_SERIES, AT, IS_ON), left_on=at, right_on=AT, by=_SERIES, check_sortedness=False
    )
    return found.sort("_row")[IS_ON].fill_null(False)
