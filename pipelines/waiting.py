"""What waits in quarantine, and asking tables to compute something again."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

import polars as pl

from assets.ops.requests import requests
from assets.quarantine.records import records
from pipelines.context import Context
from resources.commit import Commit
from resources.errors import CommitConflictError
from resources.selection import Among

TRAINING = "training"
"""Kind of the requests that ask for a new model."""

_COLUMNS = ("record_id", "stage", "source", "reason", "message", "stream", "sequence", "row", "quarantined_at")
_PRODUCER = "secchi replay"  # of every request; stored, so it keeps its first name
_ATTEMPTS = 5


def waiting_records(context: Context, stage: str | None = None, reason: str | None = None) -> pl.DataFrame:
    """The records that no replay has taken yet, without their bytes, newest first."""
    if not context.lakehouse.exists(records.stored):
        return pl.DataFrame(schema={name: records.schema[name] for name in _COLUMNS})
    where = [Among(name, [value]) for name, value in (("stage", stage), ("reason", reason)) if value]
    rows = context.lakehouse.read(records.stored, *where, columns=[*_COLUMNS, "replayed_by"])
    waiting = rows.filter(pl.col("replayed_by").is_null()).drop("replayed_by")
    return waiting.sort("quarantined_at", "record_id", descending=[True, False])


def counts(waiting: pl.DataFrame) -> pl.DataFrame:
    """Records of each stage and reason, the most first: ``stage, reason, records, oldest, newest``."""
    grouped = waiting.group_by("stage", "reason").agg(
        records=pl.len(), oldest=pl.col("quarantined_at").min(), newest=pl.col("quarantined_at").max()
    )
    return grouped.sort("records", "stage", "reason", descending=[True, False, False])


def raw_bytes(context: Context, record_ids: Sequence[str]) -> dict[str, bytes]:
    """The bytes of some records as they came."""
    where = Among("record_id", list(record_ids))
    rows = context.lakehouse.read(records.stored, where, columns=["record_id", "raw"])
    return dict(rows.iter_rows())


def request_replay(context: Context, table: str, reason: str | None) -> str:
    """Asks a silver table to take its waiting records again, all or those of one reason; returns the request's id.

    Raises:
        CommitConflictError: other requests were made at the same time, again and again.
    """
    return _request(context, table, "replay", {"reason": reason})


def request_rebuild(context: Context, table: str, low: datetime | None = None, high: datetime | None = None) -> str:
    """Asks a table to compute the rows of [low, high) again, None being an open end; returns the request's id.

    Raises:
        CommitConflictError: other requests were made at the same time, again and again.
    """
    span = {"from": low.isoformat() if low else None, "to": high.isoformat() if high else None}
    return _request(context, table, "rebuild", span)


def request_training(context: Context, model: str, because: str) -> str:
    """Asks for a training of a model; returns the request's id.

    Raises:
        CommitConflictError: other requests were made at the same time, again and again.
    """
    return _request(context, model, TRAINING, {"reason": because})


def _request(context: Context, table: str, kind: str, selection: dict[str, str | None]) -> str:
    request_id = str(uuid4())
    row = pl.DataFrame(
        {
            "request_id": [request_id],
            "table_name": [table],
            "kind": [kind],
            "selection": [json.dumps(selection)],
            "requested_at": [context.clock()],
        }
    )
    for left in reversed(range(_ATTEMPTS)):
        try:
            _append_request(context, request_id, row)
            break
        except CommitConflictError:
            if not left:
                raise
    return request_id


def _append_request(context: Context, request_id: str, row: pl.DataFrame) -> None:
    stored = requests.stored
    head = context.lakehouse.head(stored)
    marker = head.markers.get(_PRODUCER, {})
    files = context.lakehouse.write(stored, row, head.batch_id + 1)
    summary = {"secchi.run_id": context.run_id}
    to = {"request": request_id}
    context.lakehouse.commit_once(Commit(stored, _PRODUCER, marker, to, head.batch_id + 1, files, (), summary))
