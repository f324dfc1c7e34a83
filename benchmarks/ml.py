"""make bench-ml: windows scored a second from gold to gold.anomaly_scores, training on as many, and the explanations.

Before that, what the model finds of the simulator's faults (``benchmarks.ml_faults``).

Windows of 1,000 simulated sensors (200 devices) are committed to gold.sensor_windows_1m. A model is trained on them in
a process of its own; then the engine plans, reads, judges, checks and commits all their scores in micro-batches. The
model is loaded before, and scikit-learn with it, as in a run that is under way.
"""

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import ml_faults
from ml.anomaly_model import restore, train
from ml.explanation import shares
from ml.isolation_forest import score
from ml.quantities import FEATURES, KEY
from pipelines.config import Config, LakehouseConfig
from pipelines.context import Context, open_context
from pipelines.gold_step import run_gold
from pipelines.training import MODEL
from resources.commit import Commit
from resources.model_store import Training

SENSORS, PER_DEVICE = 1_000, 5
START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOWS, SCORES = "gold.sensor_windows_1m", "gold.anomaly_scores"
FAULTS = 1_000


def windows(count: int, seed: int = 0) -> pl.DataFrame:
    """Final windows of sensors with a level, a slow rhythm and noise of their own."""
    random = np.random.default_rng(seed)
    minutes = count // SENSORS
    minute, sensor = (axis.ravel() for axis in np.meshgrid(np.arange(minutes), np.arange(SENSORS)))
    level = random.uniform(10, 500, SENSORS)[sensor] + np.sin(minute / 180 + sensor)
    mean = level + random.normal(0, 0.3, len(minute))
    spread = random.gamma(20, 0.05, len(minute))
    start = pl.Series(minute * 60_000_000 + int(START.timestamp() * 1e6)).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "site_id": 101 + sensor // 250,
            "device_id": 1000 + sensor // PER_DEVICE,
            "sensor_id": sensor,
            "unit": pl.repeat("BAR", len(minute), eager=True),
            "window_start": start,
            "window_end": start + timedelta(minutes=1),
            "readings": random.integers(18, 22, len(minute)),
            "mean": mean,
            "minimum": mean - 2 * spread,
            "maximum": mean + 2 * spread,
            "stddev": spread,
            "p50": mean,
            "p95": mean + 1.6 * spread,
            "p99": mean + 1.9 * spread,
            "first": mean + random.normal(0, 1, len(minute)) * spread,
            "last": mean + random.normal(0, 1, len(minute)) * spread,
            "is_final": pl.repeat(True, len(minute), eager=True),
            "revision": pl.repeat(0, len(minute), dtype=pl.Int32, eager=True),
        }
    )


def commit_windows(context: Context, rows: pl.DataFrame, part: int = 1) -> None:
    """Puts the windows into their table, one batch a part."""
    table = context.tables[WINDOWS]
    missing = [pl.lit(None, dtype).alias(n) for n, dtype in table.schema.items() if n not in rows.columns]
    head = context.lakehouse.head(table.stored)
    files = context.lakehouse.write(table.stored, rows.with_columns(missing), head.batch_id + 1)
    context.lakehouse.commit_once(
        Commit(table.stored, "bench", head.markers.get("bench", {}), {"part": part}, head.batch_id + 1, files)
    )


def train_apart(folder: Path, count: int, answer: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Trains on the windows, stores the model, and answers with seconds and peak MiB."""
    context = open_context(Config(lakehouse=LakehouseConfig(path=folder)))
    rows = context.lakehouse.read(context.tables[WINDOWS].stored)
    began = time.monotonic()
    model = train(rows, trees=context.config.ml.trees, seed=0)
    seconds = time.monotonic() - began
    training = Training(0, "bench", START, 0, model.trained_rows, model.features)
    context.models.save(MODEL, model.state, model.baselines, training)
    answer.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def attribution_top1(context: Context) -> float:
    """Share of faults, each injected into one feature of a normal window, whose feature adds most to the score."""
    stored = context.models.latest(MODEL)
    assert stored is not None
    random = np.random.default_rng(1)
    rows = random.normal(size=(FAULTS, len(FEATURES)))
    faulty = random.integers(0, len(FEATURES), FAULTS)
    size = np.exp(random.uniform(np.log(8), np.log(100), FAULTS)) * random.choice([-1, 1], FAULTS)
    rows[np.arange(FAULTS), faulty] = size
    found = shares(rows, lambda z_scores: score(restore(stored).state, z_scores))
    return float((found.argmax(axis=1) == faulty).mean())


def main() -> None:
    """Prints the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--windows", type=int, default=1_000_000)
    count = options.parse_args().windows // SENSORS * SENSORS
    ml_faults.main()
    folder = Path(tempfile.mkdtemp(prefix="secchi-ml-"))
    try:
        context = open_context(Config(lakehouse=LakehouseConfig(path=folder)))
        commit_windows(context, windows(count))
        spawn = multiprocessing.get_context("spawn")
        answer = spawn.Queue()
        child = spawn.Process(target=train_apart, args=(folder, count, answer))
        child.start()
        train_seconds, rss = answer.get()
        child.join()
        context.models.latest(MODEL)
        began = time.monotonic()
        while run_gold(context, context.tables[SCORES]).did_work:
            pass
        seconds = time.monotonic() - began
        scored = context.lakehouse.read(context.tables[SCORES].stored, columns=[*KEY, "score"])
        if scored.height != count or scored["score"].null_count():
            raise SystemExit(
                f"ml: {scored.height} windows of {count} have a row, {scored['score'].null_count()} no score"
            )
        top1 = attribution_top1(context)
    finally:
        shutil.rmtree(folder)
    print(
        f"ml: windows_per_s={count / seconds:.0f} train_s={train_seconds:.1f} rss_mib={rss:.0f} "
        f"attribution_top1={top1:.3f}"
    )


if __name__ == "__main__":
    main()
