"""Landing → bronze: sealed segments become rows as they are; a segment is deleted only after its commit is on disk."""

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa

from assets.ops.batches import batches
from assets.table import Table
from pipelines.context import Context, TableResult
from pipelines.quarantine import commit_quarantine
from resources.commit import Commit, Marker
from resources.landing import (
    Segment,
    read_segment,
    recover_streams,
    remove_segment,
    sealed_segments,
    stream_names,
)
from resources.selection import Among

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BronzePlan:
    """Segments to take, and the marker (stream → last sequence taken) before and after."""

    frm: Marker
    to: Marker
    batch_id: int
    segments: tuple[Segment, ...]
    has_more: bool


def plan_bronze(context: Context, table: Table) -> BronzePlan:
    """Seals what dead collectors left, removes what is committed, and lists the segments of the next batch.

    An unknown stream starts at 0; a stream whose directory is gone is forgotten.
    """
    root, source = context.landing, table.name
    recover(context, table)
    head = context.lakehouse.head(table.stored)
    marker: Marker = head.markers.get(table.identifier, {})
    segments = sealed_segments(root, source)
    committed = [s for s in segments if s.sequence <= marker.get(s.stream, 0)]
    remove_committed(context, table, committed)
    waiting = [s for s in segments if s.sequence > marker.get(s.stream, 0)]
    taken = _up_to(waiting, context.config.micro_batch.max_bytes)
    known = stream_names(root, source)
    to = {stream: sequence for stream, sequence in marker.items() if stream in known}
    to |= {s.stream: s.sequence for s in taken}
    return BronzePlan(marker, to, head.batch_id + 1, tuple(taken), len(taken) < len(waiting))


def recover(context: Context, table: Table) -> None:
    """Seals what collectors that are gone left open in the landing of a bronze table."""

    def taken() -> Marker:
        return context.lakehouse.head(table.stored).markers.get(table.identifier, {})

    for stream in recover_streams(context.landing, table.name, taken):
        log.info("landing %s/%s: sealed the open segment of a collector that is gone", table.name, stream)


def _up_to(segments: list[Segment], most: int) -> list[Segment]:
    """The first segments that fit; at least one."""
    taken: list[Segment] = []
    size = 0
    for segment in segments:
        if taken and size + segment.size > most:
            break
        taken.append(segment)
        size += segment.size
    return taken


def run_bronze(context: Context, table: Table) -> TableResult:
    """Carries one batch of segments into bronze."""
    plan = plan_bronze(context, table)
    result = TableResult(table.identifier, has_more=plan.has_more)
    if not plan.segments:
        return result
    frames, hashes = [], {}
    for segment in plan.segments:
        try:
            records, digest = read_segment(segment.path)
            records = _completed(records, table)
        except pa.ArrowException as error:
            digest = _quarantine_segment(context, table, segment, "segment_unreadable", str(error))
            records = pa.table({}) if table.landing is None else table.landing.empty_table()
            result.quarantined["segment_unreadable"] = result.quarantined.get("segment_unreadable", 0) + 1
        hashes[f"{segment.stream}/{segment.sequence}"] = digest
        frames.append(_with_position(segment, records))
    stamps = {"ingested_at": pl.lit(context.clock()), "batch_id": pl.lit(plan.batch_id)}
    rows = pl.concat(frames).with_columns(**stamps).select(pl.col(n).cast(t) for n, t in table.schema.items())
    files = context.lakehouse.write_sorted(table.stored, rows)  # landing order is the order of the table
    summary = {"secchi.run_id": context.run_id, "secchi.segments": json.dumps(hashes)}
    commit = Commit(table.stored, table.identifier, plan.frm, plan.to, plan.batch_id, files, (), summary)
    context.lakehouse.commit_once(commit)
    for segment in plan.segments:
        remove_segment(segment)
    result.batch_id, result.rows = plan.batch_id, rows.height
    result.bytes = sum(segment.size for segment in plan.segments)
    newest: datetime | None = rows.select(pl.col(str(table.time)).max()).item()
    result.lag_seconds = (context.clock() - newest).total_seconds() if newest else None
    return result


def _completed(records: pa.Table, table: Table) -> pa.Table:
    """The records with the columns that a segment of an earlier version did not have yet.

    Raises:
        pa.ArrowException: a required column is not there, or the values of one cannot be what they are now.
    """
    assert table.landing is not None
    required = {column.name for column in table.columns if column.required}
    for field in table.landing:
        if field.name in records.column_names:
            continue
        if field.name in required:
            raise pa.ArrowInvalid(
                f"has no column {field.name!r}, which {table.identifier} requires: another version wrote it; "
                "let the version that wrote it process what is in landing before an upgrade"
            )
        records = records.append_column(field, pa.nulls(len(records), field.type))
    return records.select(table.landing.names).cast(table.landing)


def _with_position(segment: Segment, records: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(records)
    return frame.with_columns(
        stream=pl.lit(segment.stream),
        sequence=pl.lit(segment.sequence, pl.Int64),
        row=pl.int_range(pl.len(), dtype=pl.Int32),
    )


def remove_committed(context: Context, table: Table, segments: Iterable[Segment]) -> None:
    """Deletes segments that a commit recorded by hash; one that no commit recorded goes to quarantine first."""
    segments = list(segments)
    if not segments:
        return
    recorded = _recorded_hashes(context, table)
    for segment in segments:
        digest = hashlib.sha256(segment.path.read_bytes()).hexdigest()
        if recorded.get(f"{segment.stream}/{segment.sequence}") != digest:
            _quarantine_segment(
                context, table, segment, "segment_unrecorded", "its sequence number is committed, its content is not"
            )
        remove_segment(segment)


def _recorded_hashes(context: Context, table: Table) -> dict[str, str]:
    """Segment → SHA-256, of every commit that is still in the snapshots or in ops.batches."""
    found: dict[str, str] = {}
    lines = context.lakehouse.read(batches.stored, Among("table_name", [table.identifier]), columns=["segments"])
    for text in lines["segments"].drop_nulls():
        found |= json.loads(text)
    for snapshot in context.lakehouse.table(table.stored).metadata.snapshots:
        if snapshot.summary and (text := snapshot.summary.get("secchi.segments")):
            found |= json.loads(text)
    return found


def _quarantine_segment(context: Context, table: Table, segment: Segment, reason: str, why: str) -> str:
    """Keeps a whole segment's bytes in quarantine; returns their SHA-256."""
    raw = segment.path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    row = pl.DataFrame(
        {
            "record_id": [f"{table.identifier}:{segment.stream}:{segment.sequence}:{digest}"],
            "stage": [table.identifier],
            "source": [f"landing/{segment.source}"],
            "reason": [reason],
            "message": [f"{segment.path.name} of {segment.stream}: {why}"],
            "raw": [raw],
            "attributes": [None],
            "stream": [segment.stream],
            "sequence": [segment.sequence],
            "row": [-1],
            "quarantined_at": [context.clock()],
            "replayed_by": [None],
        }
    )
    log.warning("landing %s: %s, %s; its bytes are in quarantine", segment.path, reason, why)
    commit_quarantine(
        context, f"{table.identifier}/{reason}", {segment.stream: segment.sequence, "sha256": digest}, row
    )
    return digest
