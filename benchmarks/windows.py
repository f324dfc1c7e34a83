"""Tumbling, sliding and session windows from silver Parquet to gold Parquet, beside DuckDB SQL over the same file.

Then the same rows through the tables, with planning, contract, finality and replacing: in micro-batches and in one
batch, commits left out of the sums and printed apart. Then one micro-batch behind a history beside one behind none.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

from assets.aggregation import Aggregation
from benchmarks.readings import CHAIN_READINGS, SENSORS
from pipelines.config import parse_config
from pipelines.context import Context, open_context
from pipelines.gold_step import run_gold
from pipelines.silver_step import commit_watermarks
from resources.commit import Commit

START_US = 1_729_310_400_000_000
SILVER = "silver.sensor_readings"
BY = ["site_id", "device_id", "sensor_id", "unit"]
AGGREGATES = {
    "readings": "count()",
    "mean": "mean(measurement)",
    "minimum": "min(measurement)",
    "maximum": "max(measurement)",
    "stddev": "stddev(measurement)",
    "p50": "quantile(measurement, 0.50)",
    "p95": "quantile(measurement, 0.95)",
    "first": "first(measurement)",
    "last": "last(measurement)",
}
KINDS: dict[str, dict[str, Any]] = {
    "tumbling": {"kind": "tumbling", "size": "1m"},
    "sliding": {"kind": "sliding", "size": "5m", "slide": "1m"},
    "session": {"kind": "session", "gap": "30s", "max": "1h"},
}
_TRIES = 3  # the fastest counts, on both sides
_ROWS = "(select *, epoch_us(observed_at) as us from read_parquet('{source}'))"
_WINDOWS = {
    "tumbling": f"select *, us // 60000000 * 60000000 as start_us from {_ROWS}",
    "sliding": f"select *, (us // 60000000 - back) * 60000000 as start_us from {_ROWS}, range(5) as r(back)",
    "session": f"""
        select *, min(us) over (partition by site_id, device_id, sensor_id, unit, run) as start_us
        from (
            select *, sum(is_new) over (
                partition by site_id, device_id, sensor_id, unit order by us rows unbounded preceding) as run
            from (
                select *, coalesce(us - lag(us) over (
                    partition by site_id, device_id, sensor_id, unit order by us) > 30000000, true)::int as is_new
                from {_ROWS}))""",
}
_DUCKDB = """
    copy (
        select site_id, device_id, sensor_id, unit, start_us, count(*) as readings, avg(measurement) as mean,
            min(measurement) as minimum, max(measurement) as maximum, stddev(measurement) as stddev,
            quantile_cont(measurement, 0.5) as p50, quantile_cont(measurement, 0.95) as p95,
            arg_min(measurement, us) as first, arg_max(measurement, us) as last
        from ({windows}) group by all)
    to '{target}' (format parquet)"""


def readings(context: Context, count: int, start_us: int, seed: int = 0) -> pl.DataFrame:
    """Rows of silver: 300 sensors at 1 Hz that pause for 40 s after 260 s, up to 2 s out of order, each time once."""
    random = np.random.default_rng(seed)
    number = np.arange(count)
    sensor, second = number % SENSORS, number // SENSORS
    at = start_us + (second + 40 * (second // 260)) * 1_000_000
    late = random.integers(0, 1000, count) * 2000 + (second % 2) * 1000
    made = pl.DataFrame(
        {
            "site_id": 101 + sensor % 6,
            "device_id": 1000 + sensor // 5,
            "sensor_id": 10_000 + sensor,
            "unit": np.array(["BAR", "Liter", "Amp"])[sensor % 3],
            "observed_at": pl.Series(at - late).cast(pl.Datetime("us", "UTC")),
            "received_at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "measurement": np.round(random.normal(100, 5, count), 3),
            "stream": "s",
            "sequence": np.full(count, seed + 1),
            "row": number,
        }
    )
    schema = {n: t for n, t in context.tables[SILVER].schema.items() if n != "batch_id"}
    return made.select((pl.col(n) if n in made.columns else pl.lit(None).alias(n)).cast(t) for n, t in schema.items())


def opened(folder: Path) -> Context:
    """A lakehouse with a table for each kind of window."""
    made = [
        {"name": kind, "from": SILVER, "by": BY, "window": window, "lateness": "30s", "aggregate": AGGREGATES}
        for kind, window in KINDS.items()
    ]
    return open_context(parse_config({"calculation": made, "lakehouse": {"path": str(folder)}}))


def append(context: Context, rows: pl.DataFrame) -> None:
    """One silver batch."""
    table, lakehouse = context.tables[SILVER], context.lakehouse
    head = lakehouse.head(table.stored)
    to = {"benchmark": head.batch_id + 1}
    commit_watermarks(context, table, to, rows)
    files = lakehouse.write(table.stored, rows, head.batch_id + 1)
    frm = head.markers.get(table.identifier, {})
    lakehouse.commit_once(Commit(table.stored, table.identifier, frm, to, head.batch_id + 1, files))


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


class Commits:
    """Measures the commits of a lakehouse."""

    def __init__(self, context: Context) -> None:
        self.seconds = 0.0
        original = context.lakehouse.commit_once

        def commit_once(commit: Commit) -> Any:
            began = time.monotonic()
            try:
                return original(commit)
            finally:
                self.seconds += time.monotonic() - began

        context.lakehouse.commit_once = commit_once  # type: ignore[method-assign]


def computed(context: Context, commits: Commits) -> float:
    """Seconds of one pass over the tables of all kinds, without commits."""
    before = commits.seconds
    spent = sum(timed(partial(run_gold, context, context.tables[f"gold.{kind}"])) for kind in KINDS)
    return spent - (commits.seconds - before)


def one_shot(context: Context, kind: str, source: Path, target: Path) -> float:
    """Seconds from silver Parquet to gold Parquet."""
    function = context.tables[f"gold.{kind}"].function
    assert isinstance(function, Aggregation)

    def compute() -> None:
        rows = pl.read_parquet(source, columns=list(function.reads))
        function(rows).write_parquet(target, compression="zstd")

    return min(timed(compute) for _ in range(_TRIES))


def duckdb_shot(kind: str, source: Path, target: Path) -> float:
    """Seconds of the SQL statement, two threads."""
    connection = duckdb.connect(config={"threads": 2})
    query = _DUCKDB.format(windows=_WINDOWS[kind].format(source=source), target=target)
    return min(timed(lambda: connection.execute(query)) for _ in range(_TRIES))


def rows_equal(ours: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether both hold the same windows and counts, and floats within 1e-9 relative."""
    start = pl.from_epoch("start_us", time_unit="us").dt.replace_time_zone("UTC").alias("window_start")
    joined = ours.join(expected.with_columns(start), on=[*BY, "window_start"], how="full", suffix="_", coalesce=True)
    close = [
        ((pl.col(c) - pl.col(f"{c}_")).abs() <= 1e-9 * pl.col(f"{c}_").abs()).fill_null(
            pl.col(c).is_null() & pl.col(f"{c}_").is_null()
        )
        for c in AGGREGATES
    ]
    same = joined.height == ours.height == expected.height
    return same and bool(joined.select(pl.all_horizontal(close).all()).item())


def shots(folder: Path, rows: pl.DataFrame, context: Context) -> tuple[dict[str, float], bool]:
    """The ratio of each kind to DuckDB, and whether the rows are equal."""
    source = folder / "silver.parquet"
    rows.write_parquet(source)
    ratios, is_equal = {}, True
    for kind in KINDS:
        ours, theirs = folder / f"{kind}.parquet", folder / f"{kind}-duckdb.parquet"
        seconds, peer = one_shot(context, kind, source, ours), duckdb_shot(kind, source, theirs)
        ratios[kind] = seconds / peer
        print(f"{kind:10}{seconds:>8.2f} s, DuckDB {peer:.2f} s, {pl.read_parquet(ours).height} windows")
        is_equal &= rows_equal(pl.read_parquet(ours), pl.read_parquet(theirs))
    return ratios, is_equal


def through_tables(folder: Path, rows: pl.DataFrame, batch: int) -> tuple[float, float, bool]:
    """Seconds of all batches without commits, of their commits, and whether the tables hold DuckDB's rows."""
    context = opened(folder / f"batches-of-{batch}")
    commits, spent = Commits(context), 0.0
    for part in rows.iter_slices(batch):
        append(context, part)
        spent += computed(context, commits)
    is_equal = True
    for kind in KINDS:
        found = context.lakehouse.read(context.tables[f"gold.{kind}"].stored)
        live = found.filter(~pl.col("is_retracted"))
        is_equal &= rows_equal(live, pl.read_parquet(folder / f"{kind}-duckdb.parquet"))
    return spent, commits.seconds, is_equal


def on_history(folder: Path, history: int, batch: int) -> float:
    """Seconds of a micro-batch, without commits, behind so many rows of the hours before."""
    context = opened(folder / f"history-{history}")
    commits = Commits(context)
    for i, left in enumerate(range(history, 0, -1_000_000)):
        start = START_US - (left // SENSORS + 10) * 2_000_000
        append(context, readings(context, min(left, 1_000_000), start, seed=i + 1))
        computed(context, commits)
    found = []
    for i in range(3):
        append(context, readings(context, batch, START_US + i * (batch // SENSORS) * 2_000_000, seed=100 + i))
        found.append(computed(context, commits))
    return min(found)


def main() -> None:
    """Prints what was measured and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=CHAIN_READINGS)
    options.add_argument("--batch", type=int, default=100_000)
    options.add_argument("--history", type=int, default=10_000_000)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="secchi-windows-"))
    try:
        context = opened(folder / "shots")
        rows = readings(context, chosen.rows, START_US)
        ratios, is_equal = shots(folder, rows, context)
        spent, in_commits, holds = through_tables(folder, rows, chosen.batch)
        at_once, in_commit, holds_at_once = through_tables(folder, rows, rows.height)
        for how, taken, committing in (("micro-batches", spent, in_commits), ("one batch", at_once, in_commit)):
            print(f"through the tables in {how}: {taken:.2f} s, and {committing:.2f} s of commits")
        none, full = on_history(folder, 0, chosen.batch), on_history(folder, chosen.history, chosen.batch)
        print(f"one micro-batch of {chosen.batch}: {none:.2f} s on no rows, {full:.2f} s on {chosen.history}")
    finally:
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"windows: {' '.join(f'{kind}_ratio={ratio:.2f}' for kind, ratio in ratios.items())} "
        f"incremental_ratio={spent / at_once:.2f} growth_ratio={full / none:.2f} peak_mib={peak:.0f} "
        f"rows_equal={str(is_equal and holds and holds_at_once).lower()}"
    )


if __name__ == "__main__":
    main()
