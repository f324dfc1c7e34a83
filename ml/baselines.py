"""What is usual in each series of the training windows: where its quantities lie, how far they wander, when, with whom.

A quantity's z-score is its distance from the series' median in units of the series' scale. The scale is that of normal
data around the median (1.4826 times the median absolute deviation: Iglewicz and Hoaglin, "How to Detect and Handle
Outliers", 1993), plus how far the series wandered while it was watched. A sensor that drifts by itself, as temperatures
do, is so given room; one that stands still is held to it.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ml.groups import COMMON, RARITY
from ml.quantities import GROUP, MEASURED, SERIES, SMOOTHED, SPAN, START, Floats, Integers, Ordered

MIN_WINDOWS = 30
"""Fewer training windows than this do not tell what is usual in a series; it stays unknown to the model."""

MIN_CYCLES = 3
"""An hour of the day (a day of the week) is learned when it was seen on this many days (in this many weeks)."""

CLIP = 10.0
"""Levels are this far out at most when they are smoothed and compared: one wild window is not to last for many."""

_MAD_TO_SIGMA = 1.4826
_MEAN_DEVIATION_TO_SIGMA = 1.2533
_SPAN_TO_SIGMA = 3.29
_COARSE = 0.7
_RESOLUTION = 1e-6
_BLOCKS = 8
_SEEN_LONG = 300
_GOES_ON = 6.0
_RIDGE = 0.5
_FINEST = {"readings": 0.1, "silence": 0.5, "stuck": 0.5, "sustained": 0.1, "trend": 0.1, "residual": 0.1}
"""A scale is at least this: of a count's logarithm, of windows that are missing, and of z-scores."""

_PLAIN = {"median": 0.0, "scale": 1.0, "wander": 0.0}
_HOUR, _DAY = 3_600_000_000, 86_400_000_000


def columns() -> tuple[str, ...]:
    """Names of the columns of baselines that hold numbers."""
    scaled = (f"{name}_{part}" for name in (*MEASURED, *SMOOTHED) for part in ("median", "scale"))
    wander = (f"{name}_wander" for name in (*MEASURED, *SMOOTHED))
    return (*scaled, *wander, "loading", "following", "first_start", "last_start", "windows")


@dataclass(frozen=True)
class Usual:
    """Baselines as arrays, a row for each window: that of its series, NaN where the model does not know it."""

    number: Integers
    columns: dict[str, Floats]
    offset: Floats
    growth: Floats
    lasting_growth: Floats

    @property
    def is_known(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Whether the model knows the window's series."""
        return self.number >= 0


def looked_up(windows: Ordered, baselines: pl.DataFrame) -> Usual:
    """The baselines of each window's series."""
    firsts = windows.rows.select(SERIES)[np.flatnonzero(np.diff(windows.series, prepend=0))]
    numbered = baselines.select(*SERIES, pl.int_range(pl.len()).alias("number"))
    found = firsts.join(numbered, on=SERIES, how="left", nulls_equal=True, maintain_order="left")["number"]
    number = found.fill_null(-1).to_numpy().astype(np.int64)[windows.series - 1] if len(found) else windows.series
    known = {name: np.append(baselines[name].cast(pl.Float64).to_numpy(), np.nan)[number] for name in columns()}
    hours = _table(baselines, "hour_offsets", 24)[number, windows.start // _HOUR % 24]
    # 1970-01-01 was a Thursday; Monday is 0.
    days = _table(baselines, "day_offsets", 7)[number, (windows.start // _DAY + 3) % 7]
    return Usual(number, known, hours + days, *_growth(windows.start, known))


def _growth(start: Integers, known: dict[str, Floats]) -> tuple[Floats, Floats]:
    """How many times further than while it was watched a series may have wandered, if it was watched briefly.

    In few windows a drift cannot be told from noise, so the room for a window's own quantities grows as a random walk's
    (the first result). A lasting move is what a rhythm or a drift that was seen in part makes by itself: in as much
    time as the series was watched it may go ``_GOES_ON`` times as far again (the second, of ``SMOOTHED``).
    """
    first, last = known["first_start"], known["last_start"]
    age = np.maximum(np.maximum(start - last, first - start), 0.0) / np.maximum(last - first, 1.0)
    seen = known["windows"] / _SEEN_LONG
    doubt, doubt_of_lasting = np.clip(1 - seen, 0.0, 1.0), np.clip(1 - np.square(np.square(seen)), 0.0, 1.0)
    return np.sqrt(1 + 2 * doubt * age), 1 + _GOES_ON * doubt_of_lasting * age


def _table(baselines: pl.DataFrame, name: str, width: int) -> Floats:
    values = baselines[name].explode().to_numpy().reshape(-1, width) if baselines.height else np.empty((0, width))
    return np.vstack([values, np.zeros(width)])


def z_score(values: Floats, name: str, usual: Usual) -> Floats:
    """The distance of values from the usual in scales, which grow with the time since training."""
    growth = usual.lasting_growth if name in SMOOTHED else usual.growth
    scale = usual.columns[f"{name}_scale"] + usual.columns[f"{name}_wander"] * (growth - 1)
    return (values - usual.columns[f"{name}_median"]) / scale


def smoothed(windows: Ordered, usual: Usual) -> dict[str, Floats]:
    """The quantities of ``SMOOTHED``, in scales of the level; a window whose level is missing counts as usual.

    ``sustained`` is the mean level of ``SPAN`` windows or of the last half of them, whichever is nearer to the usual;
    ``trend`` that of the last half minus that of the half before, while it leads away from the usual; ``residual`` what
    of the last half the device's other sensors do not tell at the same time.
    """
    half = SPAN // 2
    level = np.clip(np.nan_to_num(z_score(windows.measured["level"] - usual.offset, "level", usual)), -CLIP, CLIP)
    near = windows.sums(level, half) / half
    before, is_whole = windows.lagged(near, half)
    away = np.where(np.abs(near) > np.abs(before), near - before, 0.0)
    others = _others(windows, near, np.nan_to_num(usual.columns["loading"]))
    return {
        "sustained": agreed(near, (near + before) / 2),  # what is over does not last
        "trend": np.where(is_whole, away, np.nan),
        "residual": near - usual.columns["following"] * others,
    }


def agreed(one: Floats, other: Floats) -> Floats:
    """The nearer to 0 where both are on the same side, else 0; NaN where one is missing."""
    nearer = np.where(one * other > 0, np.sign(one) * np.minimum(np.abs(one), np.abs(other)), 0.0)
    return np.where(np.isnan(one) | np.isnan(other), np.nan, nearer)


def _others(windows: Ordered, near: Floats, loading: Floats) -> Floats:
    """What the other sensors of the device do at the time of each window: the sum of their levels times loading."""
    if not len(near):
        return near
    offset = (windows.start - windows.start.min()) // windows.size
    _, moment = np.unique(windows.device * (int(offset.max()) + 1) + offset, return_inverse=True)
    weighted = near * loading
    # bincount adds in the order of rows, which is that of KEY.
    return np.asarray(np.bincount(moment, weights=weighted)[moment] - weighted, dtype=np.float64)


def learn(
    windows: Ordered, is_training: "np.ndarray[tuple[int], np.dtype[np.bool_]]", least: int = MIN_WINDOWS
) -> pl.DataFrame:
    """What is usual, from the windows of ``is_training``; the others only stand before them.

    Returns:
        One row a series that has at least ``least`` windows with a level, sorted: the series columns,
        ``windows``, ``<feature>_median`` and ``<feature>_scale`` of each of ``FEATURES``, ``hour_offsets`` and
        ``day_offsets`` of the level, ``loading`` and ``following`` (its part in what the device's sensors do
        together), and ``first_start`` of the training in microseconds.
    """
    is_used = is_training & np.isfinite(windows.measured["level"])
    frame = windows.rows.select(*SERIES, START).with_columns(
        pl.Series(name, values, nan_to_null=True) for name, values in windows.measured.items()
    )
    # What is before the first window is not known.
    follows = pl.col(START) > pl.col(START).min().over(SERIES)
    used = frame.with_columns(pl.when(follows).then("silence")).filter(pl.Series(is_used))
    counted = used.group_by(SERIES, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("windows"),
        pl.col(START).min().dt.epoch("us").cast(pl.Float64).alias("first_start"),
        pl.col(START).max().dt.epoch("us").cast(pl.Float64).alias("last_start"),
        pl.col("level").median().alias("_middle"),
    )
    known = counted.filter(pl.col("windows") >= least)
    known = _with_offsets(known, used)
    known = _with_scales(known, used, MEASURED)
    blank = {f"{name}_{part}": value for name in SMOOTHED for part, value in _PLAIN.items()}
    known = known.with_columns(**{k: pl.lit(v) for k, v in blank.items()}, loading=pl.lit(0.0), following=pl.lit(0.0))
    near = smoothed(windows, looked_up(windows, known))
    together = frame.select(*SERIES, START).with_columns(pl.Series("near", near["residual"])).filter(pl.Series(is_used))
    known = _with_loadings(known, together)
    near = smoothed(windows, looked_up(windows, known))
    rows = frame.select(*SERIES, START).with_columns(
        pl.Series(name, values, nan_to_null=True) for name, values in near.items()
    )
    return _with_scales(known.drop(blank), rows.filter(pl.Series(is_used)), SMOOTHED).drop("_middle")


def _with_offsets(known: pl.DataFrame, used: pl.DataFrame) -> pl.DataFrame:
    """Adds how far the level usually is from its median in each hour of the day and on each day of the week, UTC."""
    rows = used.join(known.select(*SERIES, "_middle"), on=SERIES, nulls_equal=True, maintain_order="left")
    rows = rows.select(*SERIES, START, left=pl.col("level") - pl.col("_middle"))
    for name, cell, cycle, width in (
        ("hour_offsets", pl.col(START).dt.hour(), pl.col(START).dt.date(), 24),
        ("day_offsets", pl.col(START).dt.weekday() - 1, pl.col(START).dt.truncate("1w"), 7),
    ):
        seen = rows.group_by(*SERIES, cell=cell, maintain_order=True).agg(
            offset=pl.col("left").median(), cycles=cycle.n_unique()
        )
        learned = seen.filter(pl.col("cycles") >= MIN_CYCLES)
        if learned.is_empty():
            known = known.with_columns(pl.lit([0.0] * width, pl.List(pl.Float64)).alias(name))
            continue
        cells = [pl.col("offset").filter(pl.col("cell") == i).first().fill_null(0.0) for i in range(width)]
        table = learned.group_by(SERIES, maintain_order=True).agg(pl.concat_list(cells).first().alias(name))
        known = known.join(table, on=SERIES, how="left", nulls_equal=True, maintain_order="left").with_columns(
            pl.col(name).fill_null(pl.lit([0.0] * width, pl.List(pl.Float64)))
        )
        rows = rows.join(learned, left_on=[*SERIES, cell], right_on=[*SERIES, "cell"], how="left", nulls_equal=True)
        rows = rows.select(*SERIES, START, left=pl.col("left") - pl.col("offset").fill_null(0.0))
    return known


def _with_scales(known: pl.DataFrame, rows: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Adds median and scale of each quantity; the level's are those of what the hour and day do not tell."""
    if "level" in names:
        offsets = known.select(*SERIES, "hour_offsets", "day_offsets")
        if offsets.select(pl.col("hour_offsets", "day_offsets").list.eval(pl.element() != 0).list.any().any()).row(
            0
        ) != (
            False,
            False,
        ):
            rows = rows.join(offsets, on=SERIES, how="left", nulls_equal=True, maintain_order="left").with_columns(
                level=pl.col("level")
                - pl.col("hour_offsets").list.get(pl.col(START).dt.hour()).fill_null(0.0)
                - pl.col("day_offsets").list.get(pl.col(START).dt.weekday() - 1).fill_null(0.0)
            )
    by = rows.group_by(SERIES, maintain_order=True)
    middle = by.agg(pl.col(n).median().alias(f"{n}_median") for n in names)
    block = pl.int_range(pl.len()).over(SERIES) * _BLOCKS // pl.len().over(SERIES)
    away = rows.with_columns(block.alias("_block")).join(middle, on=SERIES, nulls_equal=True, maintain_order="left")
    away = away.with_columns(pl.col(n) - pl.col(f"{n}_median") for n in names)
    noise = away.group_by(SERIES, maintain_order=True).agg(_noise(n) for n in names)
    away = away.join(noise, on=SERIES, nulls_equal=True, maintain_order="left")
    near = (pl.col(n).clip(-CLIP * pl.col(f"{n}_noise"), CLIP * pl.col(f"{n}_noise")) for n in names)
    means = away.with_columns(near).group_by(*SERIES, "_block", maintain_order=True).agg(pl.col(names).mean())
    wander = means.group_by(SERIES, maintain_order=True).agg(
        (pl.col(n).max() - pl.col(n).min()).fill_null(0.0).alias(f"{n}_wander") for n in names
    )
    joined = known
    for part in (middle, noise, wander):
        joined = joined.join(part, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(_scale(n) for n in names).select(
        *known.columns, *(f"{n}_{part}" for n in names for part in _PLAIN)
    )


def _noise(name: str) -> pl.Expr:
    """How far a quantity usually is from its median; the spans are wider where it moves in coarse steps."""
    away = pl.col(name)
    span = away.quantile(0.95) - away.quantile(0.05)
    return pl.max_horizontal(
        away.abs().median() * _MAD_TO_SIGMA,
        span / _SPAN_TO_SIGMA,
        away.abs().mean() * _MEAN_DEVIATION_TO_SIGMA * _COARSE,
    ).alias(f"{name}_noise")


def _scale(name: str) -> pl.Expr:
    """The scale: what the quantity is usually away, plus what it wandered.

    The resolution keeps rounding errors of a constant quantity from looking like events.
    """
    finest = (
        pl.lit(_FINEST[name]) if name in _FINEST else pl.max_horizontal(pl.col("_middle").abs() * _RESOLUTION, 1e-9)
    )
    if name in ("level", "change"):
        finest = pl.when(pl.col("unit").cast(pl.String) == RARITY).then(COMMON).otherwise(finest)
    return pl.max_horizontal(pl.col(f"{name}_noise") + pl.col(f"{name}_wander"), finest).alias(f"{name}_scale")


def _with_loadings(known: pl.DataFrame, near: pl.DataFrame) -> pl.DataFrame:
    """Adds each sensor's part in what its device's sensors do together.

    ``loading`` is the first principal component of the smoothed levels of the device; ``following`` is the slope of the
    sensor on the others' sum by it.
    """
    parts = [
        _loadings(rows)
        for rows in near.join(known.select(SERIES), on=SERIES, how="semi", nulls_equal=True).partition_by(
            GROUP, maintain_order=True
        )
    ]
    if not parts:
        return known
    told = pl.concat(parts)
    joined = known.drop("loading", "following").join(
        told, on=SERIES, how="left", nulls_equal=True, maintain_order="left"
    )
    return joined.with_columns(pl.col("loading", "following").fill_null(0.0)).select(known.columns)


def _loadings(device: pl.DataFrame) -> pl.DataFrame:
    series = device.select(SERIES).unique(maintain_order=True).with_row_index("_sensor")
    numbered = device.join(series, on=SERIES, nulls_equal=True, maintain_order="left")
    moments, row = np.unique(numbered[START].to_physical().to_numpy(), return_inverse=True)
    levels = np.zeros((len(moments), series.height))
    levels[row, numbered["_sensor"].to_numpy()] = numbered["near"].to_numpy()
    _, vectors = np.linalg.eigh(levels.T @ levels)
    loading = vectors[:, -1] * (1.0 if vectors[:, -1].sum() >= 0 else -1.0)
    others = (levels * loading).sum(axis=1, keepdims=True) - levels * loading
    power = np.square(others).sum(axis=0)
    following = (levels * others).sum(axis=0) / (power + _RIDGE * len(moments))
    return series.select(SERIES).with_columns(pl.Series("loading", loading), pl.Series("following", following))
