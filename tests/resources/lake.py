"""A small table for tests of storage."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from pyiceberg.manifest import DataFile

from resources.commit import Commit
from resources.lakehouse import Lakehouse
from resources.stored_table import Partition, StoredTable

START = datetime(2026, 3, 1, tzinfo=UTC)
UTC_TIME = pl.Datetime("us", "UTC")
SCHEMA: dict[str, pl.DataType] = {
    "sensor": pl.String(),
    "at": UTC_TIME,
    "value": pl.Float64(),
    "raw": pl.Binary(),
    "batch_id": pl.Int64(),
}
PARTITIONS = (Partition("sensor", "identity"), Partition("at", "hour"))
READINGS = StoredTable("silver", "readings", SCHEMA, PARTITIONS, ("at", "sensor"), frozenset({"raw"}))
FLAT = StoredTable("silver", "flat", SCHEMA, (), ("at", "sensor"))
PRODUCER = "silver.readings"


def rows(numbers: Sequence[int], sensor: str = "a") -> pl.DataFrame:
    """One row a number: a reading of that minute after START, whose value is the number."""
    return pl.DataFrame(
        {
            "sensor": [sensor] * len(numbers),
            "at": [START + timedelta(minutes=n) for n in numbers],
            "value": [float(n) for n in numbers],
            "raw": [str(n).encode() for n in numbers],
        },
        schema={name: dtype for name, dtype in SCHEMA.items() if name != "batch_id"},
    )


def append(lake: Lakehouse, stored: StoredTable, frame: pl.DataFrame, delete: Sequence[DataFile] = ()) -> Commit:
    """Commits rows as the next batch of one producer; returns the commit."""
    head = lake.head(stored)
    frm = dict(head.markers.get(PRODUCER, {}))
    batch_id = head.batch_id + 1
    files = lake.write(stored, frame, batch_id)
    commit = Commit(stored, PRODUCER, frm, {"input": batch_id}, batch_id, files, delete)
    assert lake.commit_once(commit) == "committed"
    return commit


def stored_rows(folder: Path, stored: StoredTable = READINGS) -> pl.DataFrame:
    """What a new process reads, in order."""
    return Lakehouse(folder).read(stored).sort("sensor", "at", "value")


def numbers(frame: pl.DataFrame) -> list[int]:
    """The values of rows, in order."""
    return sorted(int(value) for value in frame["value"])
