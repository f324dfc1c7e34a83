"""Silver rows put straight into their table, computed tables beside a brute-force reference of theirs."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.bronze.mqtt_messages import mqtt_messages
from assets.silver.machine_readings import machine_readings
from assets.table import Table
from pipelines.config import parse_config
from pipelines.context import Context, open_context
from pipelines.gold_step import run_gold
from pipelines.silver_step import commit_watermarks
from resources.commit import Commit
from resources.lakehouse import Lakehouse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Row = tuple[int, float, float]
"""Sensor, seconds after START, value."""


class CrashError(Exception):
    """The process ends here."""


@dataclass
class Silver:
    """A lakehouse whose silver readings are written by the test."""

    folder: Path
    calculations: Sequence[dict[str, Any]] = ()
    options: dict[str, Any] = field(default_factory=dict)
    source: str = "secchi.toml"
    now: datetime = START + timedelta(hours=6)

    def __post_init__(self) -> None:
        self.context = self.open()

    def open(self) -> Context:
        """The context as a new process would open it."""
        document = {"calculation": list(self.calculations), "lakehouse": {"path": str(self.folder)}, **self.options}
        context = open_context(parse_config(document, self.source))
        context.clock = lambda: self.now
        return context

    @property
    def readings(self) -> Table:
        return self.context.tables["silver.sensor_readings"]

    def append(self, rows: Iterable[Row]) -> None:
        """One silver batch of sensor readings; the rows of a sensor have one time each."""
        self.append_frame(self.readings, self.frame(rows))

    def frame(self, rows: Iterable[Row]) -> pl.DataFrame:
        return readings_frame(self.readings, rows, self.now)

    def append_frame(self, table: Table, frame: pl.DataFrame) -> None:
        lakehouse = self.context.lakehouse
        head = lakehouse.head(table.stored)
        frm = head.markers.get(table.identifier, {})
        to = {"test": head.batch_id + 1}
        commit_watermarks(self.context, table, to, frame)
        files = lakehouse.write(table.stored, frame, head.batch_id + 1)
        lakehouse.commit_once(Commit(table.stored, table.identifier, frm, to, head.batch_id + 1, files))

    def compute(self, *names: str) -> None:
        """Runs the tables until they rest."""
        for name in names:
            while run_gold(self.context, self.context.tables[name]).did_work:
                pass

    def stored(self, name: str) -> pl.DataFrame:
        table = self.context.tables[name].stored
        self.context.lakehouse.table(table, refresh=True)
        return self.context.lakehouse.read(table)

    def rows(self, name: str) -> pl.DataFrame:
        """What the view shows."""
        return self.stored(name).filter(~pl.col("is_retracted").fill_null(False)).sort(self.context.tables[name].key)


def readings_frame(table: Table, rows: Iterable[Row], now: datetime) -> pl.DataFrame:
    made = [
        {
            "site_id": 101,
            "device_id": 1,
            "sensor_id": sensor,
            "unit": "BAR",
            "observed_at": START + timedelta(seconds=second),
            "received_at": now,
            "measurement": value,
            "stream": "s",
            "sequence": 1,
            "row": row,
        }
        for row, (sensor, second, value) in enumerate(rows)
    ]
    return pl.DataFrame(made, schema=table.schema).drop("batch_id")


def machine_sample() -> pl.DataFrame:
    """The recorded machine states as rows of silver.machine_readings, in order of arrival, each key once."""
    folder = os.environ.get("SECCHI_TEST_DATA", "")
    path = Path(folder) / "machine" / "events_sample.jsonl"
    if not folder or not path.exists():
        pytest.skip("SECCHI_TEST_DATA names no folder with machine/events_sample.jsonl")
    messages = pl.DataFrame(
        {
            "topic": "machine/states",
            "payload": path.read_bytes().splitlines(),
            "received_at": START,
            "stream": "s",
            "sequence": 1,
        },
        schema_overrides={"payload": pl.Binary, "received_at": pl.Datetime("us", "UTC")},
    ).with_row_index("row")
    given = {n: pl.lit(None, t).alias(n) for n, t in mqtt_messages.schema.items() if n not in messages.columns}
    assert machine_readings.function is not None
    taken = messages.with_columns(*given.values()).select(pl.col(n).cast(t) for n, t in mqtt_messages.schema.items())
    rows: pl.DataFrame = machine_readings.function(taken).rows
    return rows.unique(machine_readings.key, keep="first", maintain_order=True).sort("row", "quantity", "axis")


def crash_at(lakehouse: Lakehouse, number: int, *, is_committed: bool) -> None:
    """Lets the ``number``-th commit from now fail, before it is made or behind it."""
    original, left = lakehouse.commit_once, [number]

    def commit_once(commit: Commit) -> str:
        left[0] -= 1
        if left[0] == 0 and not is_committed:
            raise CrashError
        outcome = original(commit)
        if left[0] == 0:
            raise CrashError
        return outcome

    lakehouse.commit_once = commit_once  # type: ignore[method-assign, assignment]


def carry_through(silver: Silver, crash: tuple[int, bool] | None, work: Callable[[], object]) -> None:
    """Does the work; where a crash is given, first up to it, and then as the process that comes after it.

    A crash is at which commit, and whether that one is made.
    """
    if crash is not None:
        number, is_committed = crash
        crash_at(silver.context.lakehouse, number, is_committed=is_committed)
        with suppress(CrashError):
            work()
        silver.context = silver.open()
    work()


# --- references: plain Python, one row after the other -----------------------------------------------------------

Windows = dict[tuple[Any, datetime], tuple[datetime, list[tuple[datetime, float]]]]
"""Series and start to end and rows."""


def aligned(rows: Iterable[tuple[Any, datetime, float]], size: timedelta, slide: timedelta) -> Windows:
    found: Windows = {}
    for series, at, value in sorted(rows, key=lambda row: row[1]):
        start = EPOCH + (at - EPOCH) // slide * slide
        while start + size > at:
            found.setdefault((series, start), (start + size, []))[1].append((at, value))
            start -= slide
    return found


def sessions(rows: Iterable[tuple[Any, datetime, float]], gap: timedelta, longest: timedelta) -> Windows:
    found: Windows = {}
    by_series: dict[Any, list[tuple[datetime, float]]] = {}
    for series, at, value in sorted(rows, key=lambda row: row[1]):
        by_series.setdefault(series, []).append((at, value))
    for series, ordered in by_series.items():
        runs = [[ordered[0]]]
        for row in ordered[1:]:
            if row[0] - runs[-1][-1][0] > gap:
                runs.append([])
            runs[-1].append(row)
        for run in runs:
            if run[-1][0] - run[0][0] <= longest:
                found[series, run[0][0]] = (run[-1][0] + gap, run)
                continue
            cells = sorted({(at - EPOCH) // longest for at, _ in run})
            for cell in cells:
                piece = [row for row in run if (row[0] - EPOCH) // longest == cell]
                start = piece[0][0] if cell == cells[0] else EPOCH + cell * longest
                end = piece[-1][0] + gap if cell == cells[-1] else EPOCH + (cell + 1) * longest
                found[series, start] = (end, piece)
    return found
