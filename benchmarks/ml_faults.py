"""The simulator's faults: precision and recall of each kind, beside IsolationForest.predict and a z-score.

Two plants send a week of readings. Everything learns from the first two days, without the labelled faults, and judges
the next five, in which every device has a fault of each kind. All three are asked for the same false-alarm rate. An
alarm is the first anomaly of a sensor after ten quiet windows; it is right, and a fault found, as in a backtest. Of a
kind count the windows to whose time its faults are the nearest, so false alarms are shared out among the kinds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from ml.anomaly_model import judge, train
from ml.evaluation import faults_found, met
from ml.policy import Policy
from ml.quantities import END, GROUP, KEY, SERIES, START
from pipelines.simulate.catalogue import load_catalogue
from pipelines.simulate.readings import FAULTS, Plant

SITES = (101, 102)
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
LEARNED, JUDGED = timedelta(days=2), timedelta(days=5)
STEP_MS = 30_000
RAW = ("mean", "stddev", "minimum", "maximum", "first", "last")
Z_LIMIT = 3.48
"""A normal quantity is so many deviations out with the probability 0.0005, the default of ``ml.false_alarm_rate``."""

_TIME = pl.Datetime("us", "UTC")


def simulated(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Windows of a minute, and the faults: ``site_id, device_id, sensor_id, from_at, to_at, kind``."""
    sites = [site for site in load_catalogue() if site.site_id in SITES]
    plant, low = Plant(sites, seed), round(BEGIN.timestamp() * 1000)
    high = low + round((LEARNED + JUDGED).total_seconds() * 1000)
    messages = [m for m in plant.history(low, high, STEP_MS) if m.key]
    keys = pl.DataFrame(
        [m.key for m in messages], schema=["site_id", "device_id", "sensor_id", "unit", "ts"], orient="row"
    )
    payloads = pl.Series([m.payload for m in messages]).cast(pl.String)
    values = payloads.str.extract(r'"measurement":([-+0-9.eE]+)').cast(pl.Float64)
    labels = [(x.site_id, x.device_id, None, x.started_ms, x.ended_ms, x.kind) for x in plant.labels(low, high)]
    names = {"site_id": pl.Int64, "device_id": pl.Int64, "sensor_id": pl.Int64, "from_at": pl.Int64, "to_at": pl.Int64}
    faults = pl.DataFrame(labels, schema={**names, "kind": pl.String}, orient="row")
    at = pl.from_epoch(pl.col("from_at", "to_at"), "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return _windows(keys.with_columns(value=values)), faults.with_columns(at)


def _windows(readings: pl.DataFrame) -> pl.DataFrame:
    """The columns of gold.sensor_windows_1m that the model reads."""
    value, at = pl.col("value"), pl.from_epoch("ts", "ms").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    start = at.dt.truncate("1m").alias(START)
    grouped = readings.sort(*SERIES, "ts").group_by(*SERIES, start, maintain_order=True)
    return grouped.agg(
        pl.len().cast(pl.Int64).alias("readings"),
        value.mean().alias("mean"),
        value.std().alias("stddev"),
        value.min().alias("minimum"),
        value.max().alias("maximum"),
        value.median().alias("p50"),
        value.quantile(0.99).alias("p99"),
        value.first().alias("first"),
        value.last().alias("last"),
    ).with_columns((pl.col(START) + pl.duration(minutes=1)).alias(END))


def by_predict(windows: pl.DataFrame, learned: pl.DataFrame) -> pl.DataFrame:
    """scikit-learn's predict on the raw columns, a forest for each series."""
    from sklearn.ensemble import IsolationForest

    of = learned.partition_by(SERIES, as_dict=True)
    parts = []
    for name, rows in windows.partition_by(SERIES, as_dict=True).items():
        forest = IsolationForest(contamination=Policy().false_alarm_rate, random_state=0)
        forest.fit(of[name].select(pl.col(RAW).fill_null(0.0)).to_numpy())
        found = forest.predict(rows.select(pl.col(RAW).fill_null(0.0)).to_numpy()) == -1
        parts.append(rows.with_columns(is_anomaly=pl.Series(found)))
    return _alarmed(pl.concat(parts))


def by_z_score(windows: pl.DataFrame, learned: pl.DataFrame) -> pl.DataFrame:
    """How many deviations the mean of a window is from that of its series."""
    usual = learned.group_by(SERIES).agg(pl.col("mean").mean().alias("_middle"), pl.col("mean").std().alias("_scale"))
    rows = windows.join(usual, on=list(SERIES), maintain_order="left")
    distance = (pl.col("mean") - pl.col("_middle")).abs() / pl.col("_scale")
    return _alarmed(rows.with_columns(is_anomaly=distance > Z_LIMIT))


def by_secchi(windows: pl.DataFrame, model_windows: pl.DataFrame, excluded: pl.Series) -> pl.DataFrame:
    """The product's model and default policy; it looks back at what is before the judged windows."""
    model = train(model_windows, trees=100, seed=0, excluded=excluded)
    judged = judge(model, pl.concat([model_windows, windows]), [Policy()])
    return judged.filter(pl.col(START) >= BEGIN + LEARNED)


def _alarmed(rows: pl.DataFrame) -> pl.DataFrame:
    """The first anomaly of a series after ten quiet minutes."""
    last = pl.when("is_anomaly").then(START).forward_fill().shift(1).over(SERIES)
    quiet = (pl.col(START) - last > timedelta(minutes=Policy().cooldown)).fill_null(True)
    return rows.sort(KEY).with_columns(is_alarm=pl.col("is_anomaly") & quiet)


def figures(judged: pl.DataFrame, faults: pl.DataFrame) -> Iterator[tuple[str, int, float, float, float]]:
    """Kind, number of faults, recall, precision, and the share of normal windows called anomalies."""
    is_met, is_found = faults_found(judged, faults)
    told = faults.with_columns(is_found.alias("is_found"))
    middle = told.select(*GROUP, "kind", at=pl.col("from_at") + (pl.col("to_at") - pl.col("from_at")) / 2).sort("at")
    rows = judged.with_columns(is_met.alias("is_met")).sort(START)
    near = rows.join_asof(
        middle, left_on=START, right_on="at", by=list(GROUP), strategy="nearest", check_sortedness=False
    )
    for kind in (*FAULTS, "all"):
        mine = near if kind == "all" else near.filter(kind=kind)
        spans = told if kind == "all" else told.filter(kind=kind)
        right = _share(mine.filter("is_alarm")["is_met"])
        yield kind, spans.height, _share(spans["is_found"]), right, _share(mine.filter(~pl.col("is_met"))["is_anomaly"])


def _share(flags: pl.Series) -> float:
    return int(flags.sum()) / len(flags) if len(flags) else float("nan")


def main() -> None:
    """Prints a line a kind and method."""
    windows, faults = simulated()
    cut = BEGIN + LEARNED
    before, after = windows.filter(pl.col(START) < cut), windows.filter(pl.col(START) >= cut)
    rows = met(before, faults)["row"].unique()
    excluded = pl.int_range(before.height, dtype=pl.UInt32, eager=True).is_in(rows.implode())
    judged_faults = faults.filter(pl.col("from_at") >= cut)
    normal = before.filter(~excluded)
    results = {
        "secchi": by_secchi(after, before, excluded),
        "predict": by_predict(after, normal),
        "z-score": by_z_score(after, normal),
    }
    print(f"{after.height} windows, {judged_faults.height} faults")
    print(f"{'':<9} {'fault':<9} faults recall precision normal windows called anomalies")
    for name, judged in results.items():
        for kind, count, recall, precision, normal_share in figures(judged, judged_faults):
            print(f"{name:<9} {kind:<9} {count:>6} {recall:>6.2f} {precision:>9.2f} {normal_share:>10.3%}", flush=True)


if __name__ == "__main__":
    main()
