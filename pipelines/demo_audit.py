"""Compares what the simulators recorded with what the tables hold. The pipeline's own counters are not asked."""

from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from pipelines.config import Config
from pipelines.context import Context

READING_KEY = ["site_id", "device_id", "sensor_id", "unit", "observed_at"]


@dataclass(frozen=True)
class Audit:
    """The figures of the demo's closing line; counts of readings, windows, answered PDUs, and seconds."""

    sent: int
    landed: int
    bronze: int
    silver: int
    gold: int
    quarantined: int
    windows: int
    scored: int
    polls_answered: int
    polls_silver: int
    lost: int
    duplicated: int
    checks_failed: int
    freshness_p50_s: float
    freshness_p95_s: float

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, nothing counted twice and no check failed."""
        return not (self.lost or self.duplicated or self.checks_failed)

    def line(self) -> str:
        """The closing line."""
        figures = " ".join(f"{k}={v:.2f}" if isinstance(v, float) else f"{k}={v}" for k, v in asdict(self).items())
        return f"secchi demo: {figures}"


def audit(context: Context, sent_file: Path, answered_file: Path, landed: int, checks_failed: int) -> Audit:
    """Reads the simulators' records and the tables, and compares them key by key."""
    readings, malformed = _sent(sent_file)
    silver = _table(context, "silver.sensor_readings", [*READING_KEY, "batch_id"])
    gold = _table(context, "gold.sensor_windows_1m", ["readings", "is_final"])
    bronze = _table(context, "bronze.mqtt_messages", ["sequence"])
    scores = _table(context, "gold.anomaly_scores", ["window_start"])
    kept = _table(context, "quarantine.records", ["stage", "raw"]).filter(pl.col("stage") == "silver.sensor_readings")
    answered = _answered(context.config, answered_file)
    samples = _table(context, "silver.snmp_samples", ["device_id", "request_id", "metric_oid", "observed_at"])
    lost = (
        readings.join(silver, on=READING_KEY, how="anti", nulls_equal=True).height
        + _missing_payloads(malformed, kept)
        + max(0, silver.height - int(gold["readings"].sum()))
        + answered.join(samples, on=["device_id", "request_id", "metric_oid"], how="anti").height
    )
    duplicated = (
        silver.height
        - silver.select(READING_KEY).unique().height
        + max(0, int(gold["readings"].sum()) - silver.height)
        + samples.height
        - samples.select("device_id", "metric_oid", "observed_at").unique().height
    )
    p50, p95 = _freshness(context, readings, silver)
    return Audit(
        sent=readings.height + malformed.height,
        landed=landed,
        bronze=bronze.height,
        silver=silver.height,
        gold=int(gold["readings"].sum()),
        quarantined=kept.height,
        windows=int(gold["is_final"].sum()),
        scored=scores.height,
        polls_answered=answered.select("device_id", "request_id").unique().height,
        polls_silver=samples.select("device_id", "request_id").unique().height,
        lost=lost,
        duplicated=duplicated,
        checks_failed=checks_failed,
        freshness_p50_s=p50,
        freshness_p95_s=p95,
    )


def _table(context: Context, identifier: str, columns: list[str]) -> pl.DataFrame:
    stored = context.tables[identifier].stored
    context.lakehouse.table(stored, refresh=True)
    return context.lakehouse.read(stored, columns=columns)


def _sent(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Recorded readings by event key, and malformed payloads by hash."""
    text = {"kind": pl.String, "unit": pl.String, "payload_sha256": pl.String, "is_live": pl.String}
    rows = pl.read_csv(path, schema_overrides=text).with_columns(
        observed_at=pl.from_epoch("ts_ms", time_unit="ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        is_live=pl.col("is_live").str.to_lowercase().is_in(["1", "true"]),
    )
    return rows.filter(pl.col("kind") == "reading"), rows.filter(pl.col("kind") == "malformed")


def _missing_payloads(malformed: pl.DataFrame, kept: pl.DataFrame) -> int:
    from hashlib import sha256

    found = {sha256(raw).hexdigest() for raw in kept["raw"]}
    return malformed.filter(~pl.col("payload_sha256").is_in(list(found))).height


def _answered(config: Config, path: Path) -> pl.DataFrame:
    """What the agents answered within what was asked for: of a walk, the part under its root."""
    rows = pl.read_csv(path, schema_overrides={"target": pl.String, "oid": pl.String, "requested": pl.String})
    roots = sorted({r.lstrip(".") for m in config.snmp.modules.values() for r in m.walk})
    gets = sorted({g.lstrip(".") for m in config.snmp.modules.values() for g in m.get})

    def under(column: str, root: str) -> pl.Expr:
        return (pl.col(column) == root) | pl.col(column).str.starts_with(f"{root}.")

    in_walk = [under("requested", root) & under("oid", root) for root in roots]
    wanted = pl.any_horizontal(pl.col("oid").is_in(gets) & (pl.col("oid") == pl.col("requested")), *in_walk)
    return (
        rows.filter(wanted)
        .rename({"target": "device_id", "oid": "metric_oid"})
        .unique(["device_id", "request_id", "metric_oid"])
    )


def _freshness(context: Context, readings: pl.DataFrame, silver: pl.DataFrame) -> tuple[float, float]:
    """p50 and p95 of the seconds from a live reading's sending to the gold commit that took its silver batch."""
    source = "silver.sensor_readings"
    commits = (
        _table(context, "ops.batches", ["table_name", "producer", "to_marker", "committed_at"])
        .filter(pl.col("table_name") == "gold.sensor_windows_1m", pl.col("producer") == "gold.sensor_windows_1m")
        .select(taken=pl.col("to_marker").str.json_path_match(f"$['{source}']").cast(pl.Int64), at="committed_at")
        .group_by("taken")
        .agg(pl.col("at").min())
        .sort("taken")
    )
    live = readings.filter("is_live").join(silver, on=READING_KEY, how="inner", nulls_equal=True).sort("batch_id")
    joined = live.join_asof(commits, left_on="batch_id", right_on="taken", strategy="forward")
    seconds = joined["at"].dt.epoch("us") - joined["sent_at_us"]
    if seconds.is_empty():
        return 0.0, 0.0
    return float(seconds.quantile(0.5) or 0) / 1e6, float(seconds.quantile(0.95) or 0) / 1e6
