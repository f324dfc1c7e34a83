"""make bench-commits: 1,000 whole micro-batches of 1,000 rows on top of 10 million silver rows, maintenance included.

2 % of the rows are duplicates and 1 % up to 24 h late. Compared are the first 50 with the last 50 micro-batches, a gold
query before with after, and the bytes on disk with the live bytes.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from benchmarks.readings import SENSORS, reading
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.config import Config, LakehouseConfig, MaintenanceConfig
from pipelines.context import Context, open_context
from pipelines.maintenance import maintain
from pipelines.micro_batch import MicroBatches
from resources.duckdb import connect
from resources.landing import LandingLimits, LandingStream

END = datetime(2026, 3, 2, tzinfo=UTC)
DAY_MS = 86_400_000
BATCH_ROWS = 1_000
WARM_UP = 20
MAINTAIN_EVERY = 25
QUERY = """
    select device_id, avg(mean), max(p99), sum(readings) from gold.sensor_windows_1m
    where window_start >= timestamptz '2026-03-01 20:00:00+00' group by all order by all"""


class Sender:
    """Makes the rows of one batch after another: mostly new, some repeated, some late."""

    def __init__(self, step_ms: int) -> None:
        self.random = random.Random(0)
        self.step_ms = step_ms
        self.sent = 0
        self.last: list[tuple[str, str]] = []

    @property
    def now_ms(self) -> int:
        """Event time of the next row."""
        return int(END.timestamp() * 1000) + self.sent // SENSORS * self.step_ms

    def batch(self) -> list[tuple[str, str]]:
        """Topic and payload of the rows of the next batch."""
        rows = []
        for i in range(BATCH_ROWS * 98 // 100):
            at = self.now_ms
            if i < BATCH_ROWS // 100:
                # Odd milliseconds: no row on the grid has this key.
                at = at - self.random.randrange(60_000, DAY_MS) // 2 * 2 + 1 - at % 2
            rows.append(reading(self.sent, at, round(self.random.gauss(100, 5), 3)))
            self.sent += 1
        repeated = self.random.sample(self.last or rows, BATCH_ROWS * 2 // 100)
        self.last = rows
        return rows + repeated


def base(count: int, step_ms: int) -> pl.DataFrame:
    """The rows that are there before: ``count`` readings up to END, in the three shapes."""
    start = int(END.timestamp() * 1000) - (count // SENSORS) * step_ms
    i = pl.int_range(count, eager=True)
    templates = [reading(s, 1_234_567, 7.25) for s in range(SENSORS)]
    frame = pl.DataFrame({"i": i}).with_columns(s=pl.col("i") % SENSORS, at=start + pl.col("i") // SENSORS * step_ms)
    shapes = pl.DataFrame({"s": range(SENSORS), "topic": [t for t, _ in templates], "text": [p for _, p in templates]})
    value = (pl.col("i") * 7919 % 10007 / 100).cast(pl.String)
    return frame.join(shapes, on="s", how="left", maintain_order="left").select(
        "topic",
        payload=pl.concat_str(
            pl.lit('{"ts":'),
            pl.col("at").cast(pl.String),
            pl.col("text").str.slice(13).str.replace(":7.25}", ":", literal=True),
            value,
            pl.lit("}"),
        ).cast(pl.Binary),
    )


def land_base(stream: LandingStream, count: int, step_ms: int) -> None:
    """Lands the base in sealed segments."""
    rows = base(count, step_ms).select(
        broker=pl.lit("factory"),
        topic="topic",
        qos=pl.lit(1, pl.Int8),
        retain=pl.lit(False),
        payload="payload",
        received_at=pl.lit(END),
        topic_parts=pl.lit(None, pl.String),
        properties=pl.lit(None, pl.String),
    )
    for part in rows.iter_slices(100_000):
        stream.write_batch(part.to_arrow().cast(RECORD).combine_chunks().to_batches()[0])
        stream.seal()


def query_seconds(context: Context) -> float:
    """Median of seven runs, each with fresh views."""
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        with connect(context.lakehouse, [t.stored for t in context.tables.values()]) as connection:
            connection.execute(QUERY).fetchall()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def disk_ratio(context: Context) -> float:
    """Bytes in the warehouse to bytes of the live data files."""
    disk = sum(p.stat().st_size for p in (context.lakehouse.path / "warehouse").rglob("*") if p.is_file())
    live = sum(f.file_size_in_bytes for t in context.tables.values() for f in context.lakehouse.files(t.stored))
    return disk / live


def main() -> None:
    """Prints progress and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", type=int, default=10_000_000)
    options.add_argument("--batches", type=int, default=1_000)
    chosen = options.parse_args()
    step_ms = 24 * 3600 * 1000 // (chosen.base // SENSORS)
    folder = Path(tempfile.mkdtemp(prefix="secchi-commits-"))
    upkeep = MaintenanceConfig(keep_snapshots=10, keep_snapshots_for=timedelta(0), sweep_after=timedelta(minutes=5))
    context = open_context(Config(lakehouse=LakehouseConfig(path=folder), maintenance=upkeep))
    sender = Sender(step_ms)
    try:
        stream = LandingStream(context.landing, SOURCE, "bench", RECORD, LandingLimits())
        land_base(stream, chosen.base, step_ms)
        batches = MicroBatches(context)
        context.clock = lambda: datetime.fromtimestamp(sender.now_ms / 1000, UTC)
        batches.drain()
        context.clock = lambda: datetime.now(UTC)
        maintain(context)
        context.clock = lambda: datetime.fromtimestamp(sender.now_ms / 1000, UTC)
        silver = context.tables["silver.sensor_readings"].stored
        print(f"base: {sum(f.record_count for f in context.lakehouse.files(silver))} silver rows", flush=True)
        seconds, first_query = [], 0.0
        for number in range(WARM_UP + chosen.batches):
            received = datetime.fromtimestamp(sender.now_ms / 1000, UTC)
            stream.write([("factory", t, 1, False, p.encode(), received, None, None) for t, p in sender.batch()])
            stream.seal()
            began = time.perf_counter()
            results = batches.run_once()
            if number % MAINTAIN_EVERY == 0:
                context.clock = lambda: datetime.now(UTC)
                maintain(context)
                context.clock = lambda: datetime.fromtimestamp(sender.now_ms / 1000, UTC)
            seconds.append(time.perf_counter() - began)
            if errors := [r.error for r in results if r.error]:
                raise SystemExit(f"commits: {errors[0]}")
            if number == WARM_UP:
                first_query = query_seconds(context)
            if number % 100 == 0:
                print(f"batch {number}: {statistics.mean(seconds[-50:]) * 1000:.0f} ms", flush=True)
        measured = [s * 1000 for s in seconds[WARM_UP:]]
        first, last = statistics.mean(measured[:50]), statistics.mean(measured[-50:])
        sql_ratio = query_seconds(context) / first_query
        print(
            f"commits: first50_ms={first:.0f} last50_ms={last:.0f} ratio={last / first:.2f} "
            f"sql_ratio={sql_ratio:.2f} disk_ratio={disk_ratio(context):.2f}"
        )
    finally:
        stream.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
