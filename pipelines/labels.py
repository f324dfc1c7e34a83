"""What people say of spans of time, and what of it a training leaves out."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

import polars as pl

from assets.reference.fault_labels import fault_labels
from assets.reference.labels import labels
from assets.scoring import group_of
from assets.table import Table
from ml.evaluation import met
from ml.groups import PREFIX, QUANTITY, Group
from ml.quantities import GROUP
from pipelines.context import Context
from pipelines.training import scores_table
from resources.commit import Commit
from resources.errors import CommitConflictError, SecchiError

KINDS = ("confirmed", "false_alarm", "maintenance")
_PRODUCER = "secchi label"
_ATTEMPTS = 5
_SPAN = ("kind", "from_at", "to_at", "known_at")


def add_label(
    context: Context,
    kind: str,
    of: Mapping[str, Any],
    span: tuple[datetime, datetime],
    note: str = "",
    group: str | None = None,
) -> str:
    """Writes a label down; returns its id.

    Args:
        context: the lakehouse.
        kind: one of ``KINDS``.
        of: ``site_id, device_id`` and perhaps ``sensor_id``; of a group, columns that tell its things apart, or
            ``quantity``, and their values as text. What is not named may have any value.
        span: start and end, exclusive.
        note: what was found.
        group: name of the group; None for sensors.

    Raises:
        CommitConflictError: others were written at the same time, again and again.
        SecchiError: there is no such group, it has no such column, or the column no such value.
    """
    label_id = str(uuid4())
    named = {"group_name": group, "things": json.dumps(_things(context, group, of))} if group else dict(of)
    row = {
        "label_id": label_id,
        "kind": kind,
        **named,
        "from_at": span[0],
        "to_at": span[1],
        "note": note or None,
        "labelled_at": context.clock(),
    }
    stored = labels.stored
    written = {n: t for n, t in stored.schema.items() if n != "batch_id"}
    frame = pl.DataFrame([{name: row.get(name) for name in written}], schema=written)
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


def _things(context: Context, group: str, of: Mapping[str, str]) -> dict[str, str]:
    """The things that are meant, the values written as those of the group's windows are.

    Raises:
        SecchiError: the group has no such column, or the column no such value.
    """
    scores = scores_table(context.tables, group)
    told = group_of(scores)
    if told is None:
        raise SecchiError(f"{scores.identifier}: is of sensors; name the device by --site and --device")
    for name, value in of.items():
        if name not in (*told.by, QUANTITY):
            raise SecchiError(f"group {group!r}: {name!r} tells nothing of its things; name {[*told.by, QUANTITY]}")
        if name == QUANTITY and value not in (*told.values, *told.categories):
            raise SecchiError(f"group {group!r}: has no {QUANTITY} {value!r}; {[*told.values, *told.categories]}")
    values = pl.DataFrame({name: [value] for name, value in of.items()})
    try:
        return values.cast({n: scores.schema[n] for n in of}).cast(pl.String).row(0, named=True)
    except pl.exceptions.PolarsError as error:
        raise SecchiError(f"group {group!r}: {error}") from error


def known_labels(context: Context, scores: Table, windows: pl.DataFrame) -> pl.DataFrame:
    """Labels of what a table of scores judges: ``kind, site_id, device_id, sensor_id, from_at, to_at, known_at``.

    ``known_at`` is when it was said. A group's things are named as in ``windows``, the ones that its model judges, and
    a label of several things has a row for each of those that is there.
    """
    group = group_of(scores)
    return _of_group(context, group, windows) if group else _of_sensors(context)


def _of_group(context: Context, group: Group, windows: pl.DataFrame) -> pl.DataFrame:
    told = _read(context).filter(group_name=group.name)
    names = [PREFIX + name for name in group.by]
    things = windows.select(*GROUP, *names).unique(maintain_order=True).with_columns(pl.col(names).cast(pl.String))
    found = [windows.select(*GROUP, "sensor_id").clear().hstack(told.select(_SPAN).clear())]
    for row in told.iter_rows(named=True):
        of = json.loads(row["things"])
        sensor = of.pop(QUANTITY, None)
        if of.keys() <= set(group.by):  # else it is of columns that told the group's things apart before
            meant = things.filter(pl.lit(True), **{PREFIX + name: value for name, value in of.items()}).select(GROUP)
            span = (pl.lit(row[name], told.schema[name]).alias(name) for name in _SPAN)
            found.append(meant.with_columns(pl.lit(sensor, pl.String).alias("sensor_id"), *span))
    return pl.concat(found)


def _read(context: Context) -> pl.DataFrame:
    """What was said, as it was said, the oldest first; ``known_at`` is when."""
    if not context.lakehouse.exists(labels.stored):
        return pl.DataFrame(schema=labels.schema).rename({"labelled_at": "known_at"})
    context.lakehouse.table(labels.stored, refresh=True)
    return context.lakehouse.read(labels.stored).rename({"labelled_at": "known_at"}).sort("known_at", "label_id")


def _of_sensors(context: Context) -> pl.DataFrame:
    """Labels of devices and sensors; known faults are confirmed, and taken to be known when they are over."""
    columns = [*GROUP, "sensor_id", *_SPAN]
    found = [_read(context).filter(pl.col("group_name").is_null()).select(columns)]
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
