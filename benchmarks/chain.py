"""make bench-chain: from the first landing byte to the last gold commit, beside two DuckDB statements.

A child process hands the readings to the collector's own group commit; this process carries them through every layer as
micro-batches. The clock runs from the child's first record to the last gold commit; imports are excluded on both sides.
Carried are the tables that DuckDB's statements have their like of: messages, flat readings, windows.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import duckdb
import polars as pl

from benchmarks.readings import CHAIN_READINGS, readings_file
from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.config import Config, LakehouseConfig
from pipelines.context import open_context
from pipelines.micro_batch import MicroBatches
from resources.landing import LandingLimits, LandingStream

READ_MESSAGES = 1_000  # about what the MQTT collector's reader hands on at once: 256 KiB
CHAIN = ("bronze.mqtt_messages", "silver.sensor_readings", "gold.sensor_windows_1m")
START_MS = 1_729_310_400_000
_FLAT = """
    copy (select to_timestamp(ts / 1000) as observed_at, metadata.*, measurement from read_json('{source}'))
    to '{flat}' (format parquet)"""
_WINDOWS = """
    copy (
        select metadata.siteId as site_id, metadata.deviceId as device_id, metadata.sensorId as sensor_id,
            metadata.unit as unit, ts // 60000 * 60000 as window_ms, count(*) as readings, avg(measurement) as mean,
            min(measurement) as minimum, max(measurement) as maximum, stddev(measurement) as stddev,
            quantile_cont(measurement, 0.5) as p50, quantile_cont(measurement, 0.95) as p95,
            quantile_cont(measurement, 0.99) as p99, arg_min(measurement, ts) as first, arg_max(measurement, ts) as last
        from read_json('{source}') group by all)
    to '{windows}' (format parquet)"""
_FLOATS = ("mean", "minimum", "maximum", "stddev", "p50", "p95", "p99", "first", "last")


def peak_mib(whose: int) -> float:
    """The highest resident memory of a process, or of its children, so far."""
    return resource.getrusage(whose).ru_maxrss / 1024


def land(root: Path, source: Path, ready: Event, go: Event, told: "multiprocessing.Queue[float]") -> None:
    """The collector's side: hands every message to a group commit, as the MQTT collector does.

    Tells the MiB that its list of messages takes, and when it began.
    """

    async def collect() -> None:
        limits = LandingLimits(segment_seconds=1.0)
        commit = GroupCommit(LandingStream(root, SOURCE, "bench", RECORD, limits))
        runner = asyncio.create_task(commit.run())
        told.put(time.monotonic())
        for place in range(0, len(topics), READ_MESSAGES):
            now = time.time_ns() // 1000
            read = slice(place, place + READ_MESSAGES)
            n = len(topics[read])
            times = [now] * n
            nothing: list[None] = [None] * n
            commit.put_all(
                (["factory"] * n, topics[read], [1] * n, [False] * n, payloads[read], times, nothing, nothing)
            )
            await asyncio.sleep(0)
            await commit.wait_writable()
        runner.cancel()
        await commit.aclose()

    before = peak_mib(resource.RUSAGE_SELF)
    topics, payloads = [], []
    for line in source.open():
        topic, payload = line.rstrip("\n").split("\t", 1)
        topics.append(topic)
        payloads.append(payload.encode())
    gc.freeze()  # the lists are not the collector's
    told.put(peak_mib(resource.RUSAGE_SELF) - before)
    ready.set()
    go.wait()
    asyncio.run(collect())


def run_chain(folder: Path, source: Path) -> tuple[float, int, float, pl.DataFrame]:
    """Returns seconds, number of micro-batches with bronze rows, peak MiB of both processes, and the gold rows.

    The list of messages that the child holds before it starts is not counted: a broker would hold it.
    """
    context = open_context(Config(lakehouse=LakehouseConfig(path=folder)))
    batches = MicroBatches(context, CHAIN)
    batches.drain()
    spawn = multiprocessing.get_context("spawn")
    ready, go, told = spawn.Event(), spawn.Event(), spawn.Queue()
    child = spawn.Process(target=land, args=(context.landing, source, ready, go, told))
    child.start()
    ready.wait()
    go.set()
    count = 0
    while True:
        is_done = not child.is_alive()
        results = batches.run_once()
        if errors := [r.error for r in results if r.error]:
            raise SystemExit(f"chain: {errors[0]}")
        count += any(r.table.startswith("bronze.") and r.did_work for r in results)
        if is_done and not any(r.did_work for r in results):
            break
        finished = time.monotonic()
    list_mib, seconds = told.get(), finished - told.get()
    child.join()
    peak = peak_mib(resource.RUSAGE_SELF) + peak_mib(resource.RUSAGE_CHILDREN) - list_mib
    gold = context.lakehouse.read(context.tables["gold.sensor_windows_1m"].stored)
    return seconds, count, peak, gold


def run_duckdb(folder: Path, source: Path) -> tuple[float, pl.DataFrame]:
    """Returns the seconds of the two statements, and the windows."""
    names = {"source": folder / "readings.json", "flat": folder / "flat.parquet", "windows": folder / "windows.parquet"}
    with names["source"].open("w") as file:
        file.writelines(line.split("\t", 1)[1] for line in source.open())
    connection = duckdb.connect(config={"threads": 2})
    began = time.monotonic()
    connection.execute(_FLAT.format(**names))
    connection.execute(_WINDOWS.format(**names))
    seconds = time.monotonic() - began
    return seconds, pl.read_parquet(names["windows"])


def rows_equal(gold: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether both hold the same windows and counts, and floats within 1e-9 relative."""
    key = ["site_id", "device_id", "sensor_id", "unit", "window_start"]
    start = pl.from_epoch("window_ms", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    joined = gold.join(expected.with_columns(window_start=start), on=key, how="full", suffix="_expected", coalesce=True)
    close = [
        ((pl.col(c) - pl.col(f"{c}_expected")).abs() <= 1e-9 * pl.col(f"{c}_expected").abs()).fill_null(
            pl.col(c).is_null() & pl.col(f"{c}_expected").is_null()
        )
        for c in _FLOATS
    ]
    same = pl.all_horizontal(pl.col("readings").eq_missing(pl.col("readings_expected")), *close)
    return joined.height == gold.height == expected.height and bool(joined.select(same.all()).item())


def main() -> None:
    """Prints the table and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=CHAIN_READINGS)
    rows = options.parse_args().rows
    cache = Path(tempfile.gettempdir()) / "secchi-bench"
    source = readings_file(cache, rows, START_MS)
    folder = Path(tempfile.mkdtemp(prefix="secchi-chain-"))
    try:
        seconds, batches, peak, gold = run_chain(folder / "lake", source)
        duck_seconds, expected = run_duckdb(folder, source)
        equal = rows_equal(gold, expected) and gold["readings"].sum() == rows
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"rows": rows, "per_second": round(rows / seconds), "windows": gold.height}))
    print(
        f"chain: rows={rows} batches={batches} seconds={seconds:.2f} duckdb_seconds={duck_seconds:.2f} "
        f"ratio={seconds / duck_seconds:.2f} peak_mib={peak:.0f} rows_equal={str(equal).lower()}"
    )


if __name__ == "__main__":
    main()
