"""make bench-skab DATA=folder: the anomaly model on the Skoltech Anomaly Benchmark's protocol.

Each file is an experiment of its own: the model is trained on its first 400 rows and judges the rest; F1, false-alarm
rate and missing-alarm rate are over all judged rows of all files. A row is a window of one second of eight sensors of
one device, and an alarm where any of them is an anomaly. All settings are the defaults of ``ml.policy.Policy``; the
labels are read only to count. Beside it, on the same rows: the same z-scores and calibration without the forest (their
norm), and scikit-learn's ``IsolationForest.predict`` on the raw columns.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import polars as pl

import ml.anomaly_model as anomaly_model
from ml.policy import Policy
from ml.quantities import START

TRAINING_ROWS = 400
TREES = 100
PLAIN_CONTAMINATION = 0.0005
SENSORS = 8
Flags = npt.NDArray[np.bool_]


def read(path: Path) -> pl.DataFrame:
    """The rows of a file in their order: datetime, eight sensors, and labels where the file has them."""
    rows = pl.read_csv(path, separator=";", try_parse_dates=True)
    return rows.with_columns(pl.col("datetime").cast(pl.Datetime("us", "UTC")))


def windows(rows: pl.DataFrame) -> pl.DataFrame:
    """Windows of one second with the columns of gold.sensor_windows_1m."""
    sensors = rows.columns[1 : SENSORS + 1]
    value = ("mean", "minimum", "maximum", "p50", "p99", "first", "last")
    return rows.unpivot(index="datetime", on=sensors, variable_name="unit").select(
        pl.lit(1).alias("site_id"),
        pl.lit(1).alias("device_id"),
        pl.col("unit").replace_strict(sensors, list(range(SENSORS)), return_dtype=pl.Int64).alias("sensor_id"),
        "unit",
        pl.col("datetime").alias("window_start"),
        (pl.col("datetime") + pl.duration(seconds=1)).alias("window_end"),
        *(pl.col("value").alias(name) for name in value),
        pl.lit(None, pl.Float64).alias("stddev"),
        pl.lit(1, pl.Int64).alias("readings"),
    )


def judged(rows: pl.DataFrame, seed: int, policy: Policy) -> tuple[Flags, Flags]:
    """For each row, whether the model calls it an anomaly, and whether the norm of the same z-scores does."""
    all_windows, cut = windows(rows), rows["datetime"][TRAINING_ROWS]
    model = anomaly_model.train(all_windows.filter(pl.col(START) < cut), trees=TREES, seed=seed)
    return _flags(rows, anomaly_model.judge(model, all_windows, [policy])), _by_norm(rows, all_windows, policy)


def _flags(rows: pl.DataFrame, verdicts: pl.DataFrame) -> Flags:
    by_time = verdicts.group_by(START).agg(pl.col("is_anomaly").any())
    found = rows.select("datetime").join(by_time, left_on="datetime", right_on=START, maintain_order="left", how="left")
    return np.asarray(found["is_anomaly"].to_numpy())


def _by_norm(rows: pl.DataFrame, all_windows: pl.DataFrame, policy: Policy) -> Flags:
    cut = rows["datetime"][TRAINING_ROWS]
    model = anomaly_model.train(all_windows.filter(pl.col(START) < cut), trees=1, seed=0, name="benchmarks.skab_norm")
    return _flags(rows, anomaly_model.judge(model, all_windows, [policy]))


def plain(rows: pl.DataFrame, seed: int) -> Flags:
    """scikit-learn's predict on the raw columns."""
    from sklearn.ensemble import IsolationForest

    raw = rows.select(rows.columns[1 : SENSORS + 1]).to_numpy()
    forest = IsolationForest(contamination=PLAIN_CONTAMINATION, random_state=seed).fit(raw[:TRAINING_ROWS])
    return np.asarray(forest.predict(raw) == -1)


def figures(found: list[Flags], labels: list[Flags]) -> SimpleNamespace:
    """F1, false-alarm rate and missing-alarm rate over all rows behind the training rows."""
    is_found = np.concatenate([flags[TRAINING_ROWS:] for flags in found])
    is_true = np.concatenate([flags[TRAINING_ROWS:] for flags in labels])
    hits, missed = int((is_found & is_true).sum()), int((~is_found & is_true).sum())
    false, right = int((is_found & ~is_true).sum()), int((~is_found & ~is_true).sum())
    return SimpleNamespace(
        f1=hits / max(hits + (false + missed) / 2, 1),
        far=false / max(false + right, 1),
        mar=missed / max(hits + missed, 1),
    )


def main() -> None:
    """Prints a line a file and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path, help="folder of semicolon-separated files with a column 'anomaly'")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--false-alarm-rate", type=float, default=Policy().false_alarm_rate)
    chosen = options.parse_args()
    policy = Policy(false_alarm_rate=chosen.false_alarm_rate)
    results: list[tuple[Flags, Flags, Flags, Flags]] = []
    for path in sorted(chosen.data.rglob("*.csv")):
        rows = read(path)
        if "anomaly" not in rows.columns:
            continue
        label = rows["anomaly"].to_numpy() > 0
        results.append((*judged(rows, chosen.seed, policy), plain(rows, chosen.seed), label))
        one = figures([results[-1][0]], [label])
        print(f"{path.name}: f1={one.f1:.2f} far={one.far:.2f} mar={one.mar:.2f}", flush=True)
    if not results:
        raise SystemExit(f"skab: {chosen.data} holds no csv file with a column 'anomaly'")
    forest, norm, raw, labels = (list(column) for column in zip(*results, strict=True))
    ours, beside, peer = figures(forest, labels), figures(norm, labels), figures(raw, labels)
    print(
        f"skab: f1={ours.f1:.3f} far={ours.far:.3f} mar={ours.mar:.3f} residual_f1={beside.f1:.3f} "
        f"residual_far={beside.far:.3f} plain_f1={peer.f1:.3f} plain_far={peer.far:.3f}"
    )


if __name__ == "__main__":
    main()
