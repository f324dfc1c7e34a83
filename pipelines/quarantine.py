"""Rows of quarantine.records: built the same way by every stage."""

import json
from typing import Any

import polars as pl

from assets.quarantine.records import records
from assets.table import Table
from pipelines.context import Context
from resources.commit import Commit, Marker
from resources.selection import Among

_POSITION = ["stream", "sequence", "row"]


def _raw(bronze: Table) -> str | None:
    """The column of the bytes as they came; a table of measured values has none."""
    return next((name for name, dtype in bronze.schema.items() if dtype == pl.Binary), None)


def reject_rows(context: Context, table: Table, source: pl.DataFrame, rejects: pl.DataFrame) -> pl.DataFrame:
    """Joins rejects (position, reason, message) with the bronze rows they came from.

    ``raw`` is the bronze table's binary column (payload, value), empty if it has none; ``attributes`` holds its other
    columns.
    """
    bronze = table.inputs[0]
    raw = _raw(bronze)
    own = [c.name for c in bronze.columns if c.name not in {raw, *_POSITION, "ingested_at", "batch_id"}]
    if rejects.is_empty():
        source = source.clear()
    joined = rejects.unique(_POSITION, keep="first", maintain_order=True).join(source, on=_POSITION, how="left")
    return joined.select(
        record_id=pl.format(f"{table.identifier}:{{}}:{{}}:{{}}", *_POSITION),
        stage=pl.lit(table.identifier),
        source=pl.lit(bronze.identifier),
        reason="reason",
        message="message",
        raw=pl.col(raw) if raw else pl.lit(b""),
        attributes=pl.struct(own).struct.json_encode(),
        stream="stream",
        sequence="sequence",
        row="row",
        quarantined_at=pl.lit(context.clock()),
        replayed_by=pl.lit(None, pl.String),
    )


def restore_rows(bronze: Table, kept: pl.DataFrame) -> pl.DataFrame:
    """The bronze rows that quarantined records were, from ``raw`` and ``attributes``."""
    raw = _raw(bronze)
    fields: dict[str, Any] = {
        n: (pl.String if t.is_temporal() else t)
        for n, t in bronze.schema.items()
        if n not in {raw, *_POSITION, "ingested_at", "batch_id"}
    }
    decoded = kept.select(
        *([pl.col("raw").alias(raw)] if raw else []),
        *_POSITION,
        pl.col("attributes").str.json_decode(pl.Struct(fields)).alias("a"),
    ).unnest("a")
    times = [
        pl.col(n).str.to_datetime(time_unit="us", time_zone="UTC")
        for n, t in fields.items()
        if bronze.schema[n].is_temporal()
    ]
    return decoded.with_columns(times)


def merge_quarantine(
    context: Context, rows: pl.DataFrame, taken: pl.DataFrame, request: str | None, batch_id: int
) -> tuple[pl.DataFrame, list[Any]]:
    """Rows to write and files to replace so that quarantine holds ``rows`` once and ``taken`` as replayed.

    A record that is here already (a replay that failed again) is replaced, not repeated.
    """
    ids = pl.concat([rows["record_id"], taken["record_id"]]).to_list()
    lakehouse, stored = context.lakehouse, records.stored
    replaced, kept = [], [rows.with_columns(batch_id=pl.lit(batch_id, pl.Int64))]
    if not taken.is_empty():
        for file in lakehouse.files(stored, Among("record_id", taken["record_id"].to_list())):
            frame = lakehouse.read_files(stored, [file])
            if frame["record_id"].is_in(ids).any():
                replaced.append(file)
                kept.append(frame.filter(~pl.col("record_id").is_in(rows["record_id"].to_list())))
    mark = pl.col("record_id").is_in(taken["record_id"].to_list()) & ~pl.col("record_id").is_in(
        rows["record_id"].to_list()
    )
    merged = pl.concat(kept, how="diagonal_relaxed").with_columns(
        replayed_by=pl.when(mark).then(pl.lit(request)).otherwise("replayed_by"),
        batch_id=pl.when(mark).then(pl.lit(batch_id, pl.Int64)).otherwise("batch_id"),
    )
    return merged, replaced


def commit_quarantine(
    context: Context,
    producer: str,
    to: Marker,
    rows: pl.DataFrame,
    taken: pl.DataFrame | None = None,
    request: str | None = None,
) -> None:
    """Commits a stage's rejects as a side output; does nothing when there are none or they stand already."""
    taken = taken if taken is not None else rows.clear()
    if rows.is_empty() and taken.is_empty():
        return
    stored = records.stored
    with context.lakehouse.sole_writer(stored):
        head = context.lakehouse.head(stored)
        frm = head.markers.get(producer, {})
        if frm == to:
            return
        batch_id = head.batch_id + 1
        merged, replaced = merge_quarantine(context, rows, taken, request, batch_id)
        ordered = merged.select(pl.col(n).cast(t) for n, t in stored.schema.items()).sort(stored.sort)
        files = context.lakehouse.write_sorted(stored, ordered)
        summary = {"secchi.run_id": context.run_id, "secchi.reasons": json.dumps(reasons(rows))}
        context.lakehouse.commit_once(Commit(stored, producer, frm, to, batch_id, files, replaced, summary))


def computed_reject_rows(context: Context, table: Table, violations: pl.DataFrame | None) -> pl.DataFrame:
    """Rows of quarantine for computed rows that break their contract; ``raw`` is the row as JSON."""
    if violations is None or violations.is_empty():
        return pl.DataFrame(schema=records.schema).drop("batch_id")
    told = pl.struct(pl.exclude("reason", "message")).struct.json_encode()
    return violations.select(
        record_id=pl.concat_str(
            [pl.lit(table.identifier), *(pl.col(k).cast(pl.String) for k in table.key)], separator=":"
        ),
        stage=pl.lit(table.identifier),
        source=pl.lit(table.inputs[0].identifier),
        reason="reason",
        message="message",
        raw=told.cast(pl.Binary),
        attributes=pl.lit(None, pl.String),
        stream=pl.lit(""),
        sequence=pl.lit(0, pl.Int64),
        row=pl.lit(0, pl.Int32),
        quarantined_at=pl.lit(context.clock()),
        replayed_by=pl.lit(None, pl.String),
    )


def reasons(rows: pl.DataFrame) -> dict[str, int]:
    """Reason code to number of records."""
    return dict(rows.group_by("reason").len().sort("reason").iter_rows())
