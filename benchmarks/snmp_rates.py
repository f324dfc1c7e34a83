"""The part of make bench-snmp behind the samples: steps of counters and rates of interfaces, one cycle after the other.

A cycle is a poll of 60 objects from each target, 36 of them counters of six interfaces. What a micro-batch with one of
them costs is measured on tables that hold nothing, and on tables that hold the cycles before it.
"""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from assets.silver.snmp_samples import snmp_samples
from benchmarks.snmp_traps import processor
from pipelines.config import Config, LakehouseConfig
from pipelines.context import Context, open_context
from pipelines.gold_step import run_gold
from pipelines.silver_step import commit_watermarks
from resources.commit import Commit

Figures = dict[str, str]
CYCLE = timedelta(seconds=10)
TABLES = ("silver.counter_rates", "gold.interface_rates_1m")

_START = datetime(2026, 3, 1, 12, tzinfo=UTC)
_INTERFACES = 6
_COUNTERS = ("ifHCInOctets", "ifHCOutOctets", "ifHCInUcastPkts", "ifHCOutUcastPkts", "ifInErrors", "ifOutErrors")
_NUMBERS = {"ifHighSpeed": 10_000, "ifCounterDiscontinuityTime": 0}
_MEASURED = 3


def rates(targets: int, cycles: int) -> Figures:
    """A cycle's micro-batch on both tables, commits included: on nothing, and behind ``cycles`` others."""
    with tempfile.TemporaryDirectory() as folder:
        _spent(Path(folder) / "warm", 1, range(1))
        none = _spent(Path(folder) / "none", targets, range(1))[0]
        found = _spent(Path(folder) / "full", targets, range(cycles, cycles + _MEASURED))
    full = [min(each) for each in zip(*found, strict=True)]
    for name, (one, _), (used, wall) in zip(TABLES, none, full, strict=True):
        print(
            f"rates: {name:24} {used:.2f} s of processor time, {wall:.2f} s by the clock behind {cycles} cycles of "
            f"{targets * len(_objects())} samples; {one:.2f} s on nothing"
        )
    used, one = (sum(seconds for seconds, _ in each) for each in (full, none))
    return {"rates_cycle_cpu_s": f"{used:.2f}", "rates_growth": f"{used / one:.2f}"}


def _spent(folder: Path, targets: int, measured: Sequence[int]) -> list[list[tuple[float, float]]]:
    """Seconds of each table in each of the measured cycles; those before them are computed at once."""
    context = open_context(Config(lakehouse=LakehouseConfig(path=folder)))
    context.clock = lambda: _START + timedelta(days=1)
    for cycle in range(measured[0]):
        _append(context, _samples(targets, cycle))
    if measured[0]:
        _run(context)
    found = []
    for cycle in measured:
        _append(context, _samples(targets, cycle))
        found.append(_run(context))
    return found


def _run(context: Context) -> list[tuple[float, float]]:
    found = []
    for name in TABLES:
        with processor() as used:
            while run_gold(context, context.tables[name]).has_more:
                pass
        found.append((used[0], used[1]))
    return found


def _objects() -> list[tuple[str, str, str, str]]:
    """Name, OID, wire type and module of what is polled of a target."""
    found = [("sysUpTime", "1.3.6.1.2.1.1.3.0", "TimeTicks", "SNMPv2-MIB")]
    found += [
        (f"hrProcessorLoad{n}", f"1.3.6.1.2.1.25.3.3.1.2.{n}", "Integer32", "HOST-RESOURCES-MIB") for n in range(5)
    ]
    for index in range(1, _INTERFACES + 1):
        for at, name in enumerate((*_COUNTERS, *_NUMBERS, "ifName")):
            kind = "Counter32" if "Errors" in name else "Counter64" if name in _COUNTERS else "Gauge32"
            oid = f"1.3.6.1.2.1.31.1.1.1.{at}.{index}"
            found.append((name, oid, "OctetString" if name == "ifName" else kind, "IF-MIB"))
    return found


def _samples(targets: int, cycle: int) -> pl.DataFrame:
    """Rows of silver.snmp_samples of one cycle; the polls of the targets are spread over it."""
    objects = _objects()
    each = pl.DataFrame(objects, schema=["object_name", "metric_oid", "data_type", "mib_module"], orient="row")
    instance = pl.col("metric_oid").str.split(".").list.last()
    rise = pl.int_range(pl.len(), dtype=pl.Int64) * 1000 + 1000
    each = each.with_columns(instance=instance, instance_identifier=instance, rise=rise)
    phase = np.arange(targets) * (CYCLE // timedelta(microseconds=1)) // targets
    devices = pl.DataFrame({"device_id": [f"10.0.{n // 250}.{n % 250}:161" for n in range(targets)], "phase": phase})
    at = pl.lit(_START + cycle * CYCLE, pl.Datetime("us", "UTC")) + pl.duration(microseconds="phase")
    is_counter = pl.col("data_type").str.starts_with("Counter")
    number = (
        pl.when(is_counter)
        .then(pl.col("rise") * (cycle + 1))
        .when(pl.col("object_name") == "sysUpTime")
        .then(pl.lit(10**6 + cycle * 1000))
        .when(pl.col("object_name") == "ifHighSpeed")
        .then(pl.lit(10_000))
        .when(pl.col("data_type") != "OctetString")
        .then(pl.lit(0))
    )
    rows = devices.join(each, how="cross").with_columns(number=number, observed_at=at)
    made = rows.with_columns(
        pl.coalesce(pl.col("number").cast(pl.String), pl.format("Gi0/{}", "instance")).alias("metric_value"),
        pl.format("{}-{}", "device_id", pl.lit(cycle)).alias("poll_id"),
        pl.col("observed_at").alias("received_at"),
        pl.when(is_counter).then("number").alias("counter_value"),
        numeric_value="number",
        request_id=pl.lit(1),
        stream=pl.lit("bench"),
        sequence=pl.lit(cycle),
        row=pl.int_range(pl.len()),
    )
    schema = {n: t for n, t in snmp_samples.schema.items() if n != "batch_id"}
    return made.select((pl.col(n) if n in made.columns else pl.lit(None).alias(n)).cast(t) for n, t in schema.items())


def _append(context: Context, rows: pl.DataFrame) -> None:
    """One batch of silver.snmp_samples."""
    lakehouse, stored = context.lakehouse, snmp_samples.stored
    head = lakehouse.head(stored)
    frm, to = head.markers.get(snmp_samples.identifier, {}), {"benchmark": head.batch_id + 1}
    commit_watermarks(context, snmp_samples, to, rows)
    files = lakehouse.write(stored, rows, head.batch_id + 1)
    lakehouse.commit_once(Commit(stored, snmp_samples.identifier, frm, to, head.batch_id + 1, files))
