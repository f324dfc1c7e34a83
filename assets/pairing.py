"""The function of a join: rows of two sides in, one row a pair out."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from assets.aggregation import Aggregate, chosen
from assets.expressions import Expression, evaluate

Match = Literal["latest", "next", "latest_both", "nearest", "all"]
PAIRED_AT = "observed_at"
"""Column of a pair's time: the smaller of its rows' times."""

_LEFT, _RIGHT = "_left", "_right"
_TURNED = {_LEFT: _RIGHT, _RIGHT: _LEFT}
_SERIES, _AT = "_series", "_at"


@dataclass(frozen=True)
class Side:
    """One side of a join.

    Attributes:
        name: what it is called in expressions and in the column of its time.
        source: number of its input.
        time: the input's column of event time.
        order: columns that order the rows of a series totally, ``time`` first.
        where: condition on its rows.
        columns: what the expressions read of it.
    """

    name: str
    source: int
    time: str
    order: tuple[str, ...]
    where: Expression | None
    columns: tuple[str, ...]

    @property
    def at(self) -> str:
        """Column of the pair that holds this row's time."""
        return f"{self.name}_at"


@dataclass(frozen=True)
class Pairing:
    """Pairs rows of two sides that share ``by`` and are at most ``within`` apart in event time, each pair once.

    Where rows of one side share series and time, the last in their total order stands for them. Callable, and picklable
    so that it can be sent to a worker.

    Attributes:
        by: columns of both inputs that must be equal.
        within: how far apart in event time the rows of a pair may be.
        match: ``latest``: each left row with the latest right row at or before it; ``next``: with the first one at or
            after it; ``latest_both``: ``latest``, and each right row with the latest left row at or before it;
            ``nearest``: each left row with the nearest right row, of two the earlier; ``all``: every two rows.
        left: the left side.
        right: the right side.
        select: the computed columns.
    """

    by: tuple[str, ...]
    within: timedelta
    match: Match
    left: Side
    right: Side
    select: tuple[Aggregate, ...]

    def __call__(self, *inputs: pl.DataFrame) -> pl.DataFrame:
        """Returns by, observed_at, the times of both sides and the computed columns, sorted by series and times."""
        left, right = (self._rows(side, inputs[side.source]) for side in (self.left, self.right))
        series = (
            left.select(self.by)
            .unique()
            .join(right.select(self.by).unique(), on=list(self.by), how="semi", nulls_equal=True)
        )
        series = series.sort(self.by).with_row_index(_SERIES)
        left, right = self._ordered(self.left, left, series), self._ordered(self.right, right, series)
        pairs = self._pairs(*(rows.select(_SERIES, _AT).with_row_index("_row") for rows in (left, right)))
        return self._computed(series, left, right, pairs)

    def _rows(self, side: Side, rows: pl.DataFrame) -> pl.DataFrame:
        if side.where:
            rows = rows.filter(chosen(rows, side.where))
        return rows.select(*dict.fromkeys([*self.by, *side.order, *side.columns]))

    def _ordered(self, side: Side, rows: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
        numbered = rows.join(series, on=list(self.by), how="inner", nulls_equal=True)
        ordered = numbered.sort(_SERIES, *side.order).with_columns(pl.col(side.time).alias(_AT))
        is_last = (pl.col(_SERIES) != pl.col(_SERIES).shift(-1)) | (pl.col(_AT) != pl.col(_AT).shift(-1))
        return ordered.filter(is_last.fill_null(True))

    def _pairs(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        """Row numbers of the pairs (``_left, _right``), each once, in order."""
        if self.match == "latest":
            found = [self._as_of(left, right, "backward")]
        elif self.match == "next":
            found = [self._as_of(left, right, "forward")]
        elif self.match == "latest_both":
            turned = self._as_of(right, left, "backward").select(
                pl.col(_RIGHT).alias(_LEFT), pl.col(_LEFT).alias(_RIGHT)
            )
            found = [self._as_of(left, right, "backward"), turned]
        elif self.match == "nearest":
            found = [self._nearest(left, right)]
        else:
            found = [self._all(left, right)]
        return pl.concat(found).unique().sort(_LEFT, _RIGHT)

    def _as_of(self, left: pl.DataFrame, right: pl.DataFrame, strategy: Literal["backward", "forward"]) -> pl.DataFrame:
        """For each left row the right row that it sees; left rows that see none are left out."""
        seen = left.join_asof(
            right,
            on=_AT,
            by=_SERIES,
            strategy=strategy,
            tolerance=self.within,
            suffix="_seen",
            check_sortedness=False,  # they are sorted within each series
        )
        return seen.select(pl.col("_row").alias(_LEFT), pl.col("_row_seen").alias(_RIGHT)).drop_nulls()

    def _nearest(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        both = pl.concat([self._as_of(left, right, "backward"), self._as_of(left, right, "forward")])
        far = (left[_AT].gather(both[_LEFT]) - right[_AT].gather(both[_RIGHT])).dt.total_microseconds().abs()
        return both.with_columns(far.alias("_far")).sort(_LEFT, "_far", _RIGHT).unique(_LEFT, keep="first").drop("_far")

    def _all(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
        """The right rows of a left row stand side by side: from the first to the last within reach."""
        first = self._edge(left.with_columns(pl.col(_AT) - self.within), right, "forward").alias("_first")
        last = self._edge(left.with_columns(pl.col(_AT) + self.within), right, "backward").alias("_last")
        edges = left.select(pl.col("_row").alias(_LEFT), first, last).filter(pl.col("_first") <= pl.col("_last"))
        ranges = pl.int_ranges("_first", pl.col("_last") + 1, dtype=pl.UInt32).alias(_RIGHT)
        return edges.select(_LEFT, ranges).explode(_RIGHT)

    def _edge(self, left: pl.DataFrame, right: pl.DataFrame, strategy: Literal["backward", "forward"]) -> pl.Series:
        seen = left.join_asof(
            right,
            on=_AT,
            by=_SERIES,
            strategy=strategy,
            tolerance=2 * self.within,
            suffix="_seen",
            check_sortedness=False,
        )
        return seen["_row_seen"]

    def _computed(
        self, series: pl.DataFrame, left: pl.DataFrame, right: pl.DataFrame, pairs: pl.DataFrame
    ) -> pl.DataFrame:
        parts = [series[left[_SERIES].gather(pairs[_LEFT])].select(self.by)]
        for side, rows, number in ((self.left, left, _LEFT), (self.right, right, _RIGHT)):
            wanted = [pl.col(_AT).alias(side.at), *(pl.col(c).alias(f"{side.name}.{c}") for c in side.columns)]
            parts.append(rows.select(wanted)[pairs[number]])
        paired = pl.concat(parts, how="horizontal").with_columns(
            pl.min_horizontal(self.left.at, self.right.at).alias(PAIRED_AT)
        )
        columns = (f'CAST({a.expression.sql} AS {a.stored_as}) AS "{a.name}"' for a in self.select)
        computed = evaluate(f"SELECT {', '.join(columns)} FROM input", paired)
        return paired.select(*self.by, PAIRED_AT, self.left.at, self.right.at).hstack(computed)
