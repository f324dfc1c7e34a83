"""The join of gold.machine_power over machine states, beside the union of two DuckDB ASOF joins of the same rows.

Both read the same Parquet file of readings and write one of pairs, with two threads; imports are excluded.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from assets.calculation import built_in
from assets.pairing import Pairing
from assets.silver.machine_readings import machine_readings

_THINGS, _AXES = 20, 6
_ASOF = """
    copy (
        with torque as (select * from read_parquet('{source}') where quantity = 'vaTorque'),
             speed as (select * from read_parquet('{source}') where quantity = 'actSpeed'),
             pairs as (
                 select t.thing, t.axis, t.observed_at as torque_at, s.observed_at as speed_at, t.value as torque,
                     s.value as speed
                 from torque t asof join speed s
                     on t.thing = s.thing and t.axis = s.axis and t.observed_at >= s.observed_at
                 where t.observed_at - s.observed_at <= interval 1 second
                 union
                 select s.thing, s.axis, t.observed_at, s.observed_at, t.value, s.value
                 from speed s asof join torque t
                     on t.thing = s.thing and t.axis = s.axis and s.observed_at >= t.observed_at
                 where s.observed_at - t.observed_at <= interval 1 second)
        select *, least(torque_at, speed_at) as observed_at, 'power_' || axis as metric,
            least(abs(2 * pi() / 60 * torque * speed), 20000) as power
        from pairs)
    to '{target}' (format parquet)"""


def machine_states(count: int, seed: int = 0) -> pl.DataFrame:
    """Readings of two quantities in order of arrival: about 1,000 a second, up to 2 s late, each key once."""
    random = np.random.default_rng(seed)
    at = 1_554_096_460_000 + np.arange(count) - random.integers(0, 2_000, count)
    things, axes = random.integers(0, _THINGS, count), random.integers(1, _AXES + 1, count)
    rows = pl.DataFrame(
        {
            "thing": pl.Series(things).cast(pl.String).str.zfill(4),
            "quantity": np.where(random.random(count) < 0.5, "vaTorque", "actSpeed"),
            "axis": pl.Series(axes).cast(pl.String),
            "observed_at": pl.Series(at).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
            "value": random.normal(100, 30, count),
            "stream": "s",
            "sequence": 1,
        }
    ).with_columns(pl.format("R{}", "thing").alias("thing"), pl.format("C1{}", "axis").alias("axis"))
    unique = rows.unique(machine_readings.key, keep="first", maintain_order=True).with_row_index("row")
    given = {n: t for n, t in machine_readings.schema.items() if n in unique.columns}
    return unique.select(pl.col(n).cast(t) for n, t in given.items())


def run_ours(source: Path, target: Path) -> tuple[float, float]:
    """Returns the seconds of reading, joining and writing, and those of the processors."""
    function = built_in("machine_power").function
    assert isinstance(function, Pairing)
    began, worked = time.monotonic(), time.process_time()
    function(pl.read_parquet(source)).write_parquet(target, compression="zstd", compression_level=1)
    return time.monotonic() - began, time.process_time() - worked


def run_duckdb(source: Path, target: Path) -> tuple[float, float]:
    """Returns the seconds of the statement, and those of the processors."""
    connection = duckdb.connect(config={"threads": 2})
    began, worked = time.monotonic(), time.process_time()
    connection.execute(_ASOF.format(source=source, target=target))
    return time.monotonic() - began, time.process_time() - worked


def rows_equal(ours: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether both hold the same pairs, and powers within 1e-9 relative."""
    key = ["thing", "axis", "torque_at", "speed_at"]
    times = [pl.col(n).dt.convert_time_zone("UTC").dt.cast_time_unit("us") for n in ("torque_at", "speed_at")]
    joined = ours.join(expected.with_columns(times), on=key, how="full", suffix="_expected", coalesce=True)
    is_close = (pl.col("power") - pl.col("power_expected")).abs() <= 1e-9 * pl.col("power_expected").abs()
    is_same = is_close.fill_null(False) & (pl.col("metric") == pl.col("metric_expected")).fill_null(False)
    return joined.height == ours.height == expected.height and bool(joined.select(is_same.all()).item())


def main() -> None:
    """Prints the table and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_402_232)
    rows = options.parse_args().rows
    folder = Path(tempfile.mkdtemp(prefix="secchi-joins-"))
    try:
        source, ours, theirs = (folder / f"{name}.parquet" for name in ("readings", "ours", "theirs"))
        machine_states(rows).write_parquet(source)
        (seconds, cpu), (duck_seconds, duck_cpu) = run_ours(source, ours), run_duckdb(source, theirs)
        found, expected = pl.read_parquet(ours), pl.read_parquet(theirs)
        equal = rows_equal(found, expected)
    finally:
        shutil.rmtree(folder)
    print(f"{'':12}{'seconds':>10}{'processor':>12}{'pairs':>12}")
    print(f"{'secchi':12}{seconds:>10.2f}{cpu:>12.2f}{found.height:>12}")
    print(f"{'duckdb':12}{duck_seconds:>10.2f}{duck_cpu:>12.2f}{expected.height:>12}")
    print(
        f"join: rows={rows} pairs={found.height} joins_per_s={found.height / seconds:.0f} "
        f"duckdb_ratio={seconds / duck_seconds:.2f} rows_equal={str(equal).lower()}"
    )


if __name__ == "__main__":
    main()
