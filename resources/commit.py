"""The fenced commit: data, batch_id and marker of a table move in one transaction.

A table's progress lives in the table: the property ``secchi.batch_id`` (number of its last commit) and one
``secchi.marker.<producer>`` a producer (JSON, input → position).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from resources.iceberg import ReplaceFiles, StagedTransaction
from resources.stored_table import StoredTable

Marker = dict[str, Any]
_BATCH_PROPERTY = "secchi.batch_id"
_MARKER_PROPERTY = "secchi.marker."


def stands_at(frm: Marker, to: Marker) -> bool:
    """Whether a marker is where a plan goes; an input that was never read stands at 0."""
    return all(frm.get(name, 0) == position for name, position in to.items())


@dataclass(frozen=True)
class Head:
    """Where a table stands."""

    batch_id: int = 0
    markers: Mapping[str, Marker] = field(default_factory=dict)
    snapshot_id: int | None = None


@dataclass(frozen=True)
class Commit:
    """One fenced change: from where the plan found the producer's marker to where it goes."""

    table: StoredTable
    producer: str
    frm: Marker
    to: Marker
    batch_id: int
    add: Sequence[DataFile] = ()
    delete: Sequence[DataFile] = ()
    summary: Mapping[str, str] = field(default_factory=dict)


def head_of(table: Table) -> Head:
    """Where a loaded table stands."""
    properties = table.properties
    markers = {
        name.removeprefix(_MARKER_PROPERTY): json.loads(value)
        for name, value in properties.items()
        if name.startswith(_MARKER_PROPERTY)
    }
    snapshot = table.current_snapshot()
    return Head(int(properties.get(_BATCH_PROPERTY, "0")), markers, snapshot.snapshot_id if snapshot else None)


def transact(table: Table, commit: Commit) -> None:
    """Makes one snapshot of the commit's files, its batch_id and its marker.

    Raises:
        CommitFailedException: another commit came between.
        ValidationException: a file that is to go is gone already.
    """
    summary = {
        "secchi.batch_id": str(commit.batch_id),
        "secchi.producer": commit.producer,
        "secchi.from": json.dumps(commit.frm, sort_keys=True),
        "secchi.to": json.dumps(commit.to, sort_keys=True),
        **commit.summary,
    }
    with StagedTransaction(table) as transaction:
        stage(transaction, table, commit.add, commit.delete, summary)
        transaction.set_properties(
            {
                _BATCH_PROPERTY: str(commit.batch_id),
                f"{_MARKER_PROPERTY}{commit.producer}": json.dumps(commit.to, sort_keys=True),
            }
        )


def stage(
    transaction: Any, table: Table, add: Sequence[DataFile], delete: Sequence[DataFile], summary: dict[str, str]
) -> None:
    """Adds one snapshot to the transaction; an empty one too, since its ref assertion is what fences the marker."""
    producer = (
        ReplaceFiles(transaction, table, summary)
        if delete
        else transaction.update_snapshot(snapshot_properties=summary).merge_append()
    )
    with producer:
        for file in add:
            producer.append_data_file(file)
        for file in delete:
            producer.delete_data_file(file)
