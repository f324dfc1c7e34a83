"""What a score means: how rarely a series has such a one in normal times.

The tail of a series' normal scores is taken to fall off exponentially (the Gumbel case of peaks over threshold: Coles,
"An Introduction to Statistical Modeling of Extreme Values", 2001, chapter 4). From it follows, for every score, its
return period in windows: one scale for all series, on which a false-alarm rate can be stated.
"""

import numpy as np
import polars as pl

from ml.quantities import SERIES, Floats

TAIL_SHARE = 0.1
"""Share of the normal scores that the tail is fitted to."""

_LEAST_SCALE = 1e-6
_CEILING_PERIOD = 2_000
_ROUNDINGS = 16
_WEIGHT_OF_ALL = 1000
"""The middle of all series' tails counts as this many scores of a series' own tail.

The median, not the mean: a few series with faults that nobody has labelled would make the mean's threshold one that no
score can reach.
"""

TAIL = ("excess_start", "excess_scale", "excess_floor")


def tails(scores: pl.DataFrame, ceiling: float = np.inf) -> pl.DataFrame:
    """The tail of each series.

    Args:
        scores: the series columns, ``score`` and ``is_false_alarm`` (whether people called it one) of normal windows
            that the score's baselines were not learned from.
        ceiling: a score that comes once in ``_CEILING_PERIOD`` windows at most, however many faults that nobody has
            labelled are among the normal windows.

    Returns:
        One row a series: the series columns, ``excess_start`` (exceeded by ``TAIL_SHARE`` of the scores),
        ``excess_scale`` (mean excess over it) and ``excess_floor`` (the highest score that was a false alarm; null if
        there was none).
    """
    known = scores.filter(pl.col("score").is_not_null())
    start = pl.col("score").quantile(1 - TAIL_SHARE, interpolation="higher")
    own = known.group_by(SERIES, maintain_order=True).agg(
        start.alias("own_start"),
        pl.col("score").filter(pl.col("is_false_alarm")).max().alias("excess_floor"),
        (pl.len() * TAIL_SHARE).alias("n"),
    )
    joined = known.join(own, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    excess = (pl.col("score") - pl.col("own_start")).filter(pl.col("score") > pl.col("own_start"))
    scales = joined.group_by(SERIES, maintain_order=True).agg(excess.mean().fill_null(0.0).alias("own_scale"))
    both = own.join(scales, on=SERIES, nulls_equal=True, maintain_order="left")
    weight = pl.col("n") / (pl.col("n") + _WEIGHT_OF_ALL)
    # What never moves tells nothing of the others: beside many such columns, those that move would be called anomalies.
    moves = (pl.col("own_scale") > _LEAST_SCALE) | (pl.col("own_scale").max() <= _LEAST_SCALE)
    shrunk = (weight * pl.col(n) + (1 - weight) * pl.col(n).filter(moves).median() for n in ("own_start", "own_scale"))
    found = both.select(*SERIES, "excess_floor", *(one.alias(n) for one, n in zip(shrunk, TAIL[:2], strict=True)))
    room = ceiling - pl.col("excess_start")
    widest = pl.when(room > 0).then(room / np.log(TAIL_SHARE * _CEILING_PERIOD))
    scale = pl.min_horizontal("excess_scale", widest).clip(_LEAST_SCALE).alias("excess_scale")
    return found.select(*SERIES, "excess_start", scale, "excess_floor")


def threshold(false_alarm_rate: float, excess_start: Floats, excess_scale: Floats, excess_floor: Floats) -> Floats:
    """The score that a series exceeds in this share of its normal windows, and no false alarm that was told.

    To the last bit: a score is above it where, and only where, its return period is above one over the rate.
    """
    tail, limit = (excess_start, excess_scale, excess_floor), 1 / false_alarm_rate
    found = np.fmax(excess_start + excess_scale * np.log(TAIL_SHARE / false_alarm_rate), excess_floor)
    rounding = _ROUNDINGS * np.spacing(np.fmax(np.abs(excess_start), np.abs(found)))
    low, high = found - rounding, found + rounding
    while ((low < (middle := (low + high) / 2)) & (middle < high)).any():
        is_rarer = return_period(middle, *tail) > limit
        low, high = np.where(is_rarer, low, middle), np.where(is_rarer, middle, high)
    return np.asarray(low)


def return_period(scores: Floats, excess_start: Floats, excess_scale: Floats, excess_floor: Floats) -> Floats:
    """In how many normal windows a score as high as this is expected once; one where it was called a false alarm.

    In numpy: polars divides by a constant column with its reciprocal, so the last bits would depend on the batch.
    """
    excess = np.clip((scores - excess_start) / excess_scale, -50, 50)
    return np.asarray(np.where(scores <= excess_floor, 1.0, np.maximum(np.exp(excess) / TAIL_SHARE, 1.0)))
