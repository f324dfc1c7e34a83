"""What people say of spans of time, and what of it a training leaves out."""

from datetime import datetime
from uuid import uuid4

import polars as pl

from assets.reference.fault_labels import fault_labels
from assets.reference.labels import labels
from ml.evaluation import met
from ml.quantities import GROUP
from pipelines.context import Context
from resources.commit import Commit
from resources.errors import CommitConflictError

KINDS = ("confirmed", "false_alarm", "maintenance")
_PRODUCER = "secchi label"
_ATTEMPTS = 5


def add_label(
    context: Context, kind: str, device: tuple[int, int], sensor: int | None, span: tuple[datetime, datetime], note: str
) -> str:
    """Writes a label down; returns its id.

    Raises:
        CommitConflictError: others were written at the same time, again and again.
    """
    label_id = str(uuid4())
    row = {
        "label_id": label_id,
        "kind": kind,
        "site_id": device[0],
        "device_id": device[1],
        "sensor_id": sensor,
        "from_at": span[0],
        "to_at": span[1],
        "note": note or None,
        "labelled_at": context.clock(),
    }
    stored = labels.stored
    frame = pl.DataFrame([row], schema={n: t for n, t in stored.schema.items() if n != "batch_id"})
    for left in reversed(range(_ATTEMPTS)):
        head = context.lakehouse.head(stored)
        files = context.lakehouse.write(stored, frame, head.batch_id + 1)
        marker = head.markers.get(_PRODUCER, {})
        summary = {"secchi.run_id": context.run_id}
        commit = Commit(stored, _PRODUCER, marker, {"label": label_id}, head.batch_id + 1, files, (), summary)
        try:
            context.lakehouse.commit_once(commit)
            break
        except CommitConflictError:
            if not left:
                raise
    return label_id


def known_labels(context: Context) -> pl.DataFrame:
    """Every label: ``kind, site_id, device_id, sensor_id, from_at, to_at``; known faults are confirmed.

    ``known_at`` is when it was said; a known fault is taken to be known when it is over.
    """
    columns = ["kind", *GROUP, "sensor_id", "from_at", "to_at", "known_at"]
    schema = {**labels.schema, "known_at": labels.schema["labelled_at"]}
    found = [pl.DataFrame(schema={name: schema[name] for name in columns})]
    if context.lakehouse.exists(labels.stored):
        context.lakehouse.table(labels.stored, refresh=True)
        found.append(context.lakehouse.read(labels.stored).rename({"labelled_at": "known_at"}).select(columns))
    if context.lakehouse.exists(fault_labels.stored):
        context.lakehouse.table(fault_labels.stored, refresh=True)
        faults = context.lakehouse.read(fault_labels.stored)
        names = {"from_at": "started_at", "to_at": "ended_at", "known_at": "ended_at"}
        confirmed = faults.select(*GROUP, **names, kind=pl.lit("confirmed"), sensor_id=pl.lit(None, pl.Int64))
        found.append(confirmed.select(columns))
    return pl.concat(found)


def is_labelled(windows: pl.DataFrame, spans: pl.DataFrame, *kinds: str) -> pl.Series:
    """Whether a label of one of these kinds meets each window."""
    if spans.is_empty():
        return pl.repeat(False, windows.height, eager=True)
    rows = met(windows, spans.filter(pl.col("kind").is_in(kinds)))["row"].unique()
    return pl.int_range(windows.height, dtype=pl.UInt32, eager=True).is_in(rows.implode())
