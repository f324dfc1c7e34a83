"""One micro-batch: plan → map → commit for every table, upstream first; and the loop that carries many of them."""

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from assets.ops.batches import batches
from assets.ops.requests import requests
from assets.table import Step, Table
from pipelines.bronze_step import run_bronze
from pipelines.context import Context, TableResult
from pipelines.gold_plan import DEFINITION, due_windows
from pipelines.gold_step import run_gold
from pipelines.reference_refresh import is_due, is_versioned, version_in
from pipelines.reference_step import run_reference
from pipelines.silver_rebuild import is_rebuilding, run_silver_and_rebuild
from resources.commit import Commit, Head
from resources.errors import CommitConflictError, SchemaMismatchError, SecchiError
from resources.landing import has_sealed_segments

log = logging.getLogger(__name__)
_STEPS: dict[Step, Callable[[Context, Table], TableResult]] = {
    "state": run_reference,
    "take": run_bronze,
    "decode": run_silver_and_rebuild,
    "compute": run_gold,
}
_REPLANS = 5
_STEPS_AT_ONCE = 2  # two keep two cores busy; each more holds one more batch in memory
_RECORD_EVERY = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 5.0, 300.0


def streaming_tables(context: Context) -> list[Table]:
    """The tables that micro-batches keep up, upstream first."""
    return [t for t in context.tables.values() if t.step]


@dataclass
class MicroBatches:
    """Carries micro-batches; a table that fails backs off and does not hold tables that do not depend on it."""

    context: Context
    only: Collection[str] | None = None
    _failures: dict[str, int] = field(default_factory=dict)
    _retry_at: dict[str, float] = field(default_factory=dict)
    _has_more: bool = False
    _has_unrecorded: bool = True
    _recorded_at: float = field(default_factory=time.monotonic)

    def run_once(self) -> list[TableResult]:
        """One micro-batch through all (or the chosen) tables; returns what was done to each.

        A micro-batch goes through the tables upstream first. Where more waits than one micro-batch may hold, the tables
        work side by side instead, each on what its inputs had committed before.
        """
        tables = [t for t in streaming_tables(self.context) if self.only is None or t.identifier in self.only]
        results = self._side_by_side(tables) if self._has_more else self._upstream_first(tables)
        self._has_more = any(r.has_more for r in results)
        self._record(any(r.did_work for r in results))
        return results

    def _upstream_first(self, tables: list[Table]) -> list[TableResult]:
        results: list[TableResult] = []
        failed: set[str] = set()
        for table in tables:
            if failed & {i.identifier for i in table.inputs} or self._is_backing_off(table):
                failed.add(table.identifier)
                continue
            result = self._run(table)
            if result.error:
                failed.add(table.identifier)
            results.append(result)
        return results

    def _side_by_side(self, tables: list[Table]) -> list[TableResult]:
        with ThreadPoolExecutor(_STEPS_AT_ONCE, "micro-batch") as pool:
            return list(pool.map(self._run, [t for t in tables if not self._is_backing_off(t)]))

    def _is_backing_off(self, table: Table) -> bool:
        return time.monotonic() < self._retry_at.get(table.identifier, 0.0)

    def _record(self, did_work: bool) -> None:
        """Copies what was committed to ops.batches: now and then, and when there is nothing else to do."""
        self._has_unrecorded |= did_work
        if self._has_unrecorded and (not did_work or time.monotonic() - self._recorded_at >= _RECORD_EVERY):
            self._recorded_at = time.monotonic()
            try:
                record_batches(self.context)
                self._has_unrecorded = False
            except (SecchiError, OSError) as error:
                log.warning("ops.batches: %s; what is missing is recorded later", error)

    def _run(self, table: Table) -> TableResult:
        try:
            result = _with_replans(self.context, table)
        except (SecchiError, OSError, pl.exceptions.PolarsError) as error:
            return self._back_off(table, error)
        self._failures.pop(table.identifier, None)
        return result

    def _back_off(self, table: Table, error: Exception) -> TableResult:
        count = self._failures[table.identifier] = self._failures.get(table.identifier, 0) + 1
        delay = min(_FIRST_DELAY * 2 ** (count - 1), _LONGEST_DELAY)
        self._retry_at[table.identifier] = time.monotonic() + delay
        log.error("%s: %s; tried again in %.0f s", table.identifier, error, delay)
        return TableResult(table.identifier, error=str(error))

    def drain(self, on_results: Callable[[list[TableResult]], None] = lambda _: None) -> list[TableResult]:
        """Runs until nothing is left to carry; returns every result.

        A table in back-off ends the drain too: its error is in the results.
        """
        everything = []
        while True:
            results = self.run_once()
            on_results(results)
            everything += results
            if not any(r.did_work for r in results):
                return everything


def _with_replans(context: Context, table: Table) -> TableResult:
    assert table.step is not None
    step = _STEPS[table.step]
    for _ in range(_REPLANS):
        try:
            return step(context, table)
        except CommitConflictError as conflict:
            log.info("%s; planning again", conflict)
    return TableResult(table.identifier, has_more=True)


def is_behind(context: Context) -> str | None:
    """Why a run is needed: sealed segments, a table behind an input, a request for it, or a window's time has come."""
    if has_sealed_segments(context.landing):
        return "landing has sealed segments"
    asked = context.lakehouse.head(requests.stored).batch_id
    heads = {t.identifier: context.lakehouse.head(t.stored) for t in streaming_tables(context)}
    for table in streaming_tables(context):
        marker = heads[table.identifier].markers.get(table.identifier, {})
        if table.step == "state" and is_due(context, table):
            return f"the side input of {table.identifier} is due"
        for source in table.inputs:
            if marker.get(source.identifier, 0) < heads[source.identifier].batch_id:
                return f"{table.identifier} is behind {source.identifier}"
        for reference in filter(is_versioned, table.references):
            newest = heads.get(reference.identifier, Head()).markers.get(reference.identifier, {})
            if marker and marker.get(reference.identifier, 0) < version_in(newest):
                return f"{table.identifier} is behind {reference.identifier}"
        if table.inputs and marker.get(requests.identifier, 0) < asked:
            return f"{table.identifier} has not looked at the newest requests"
        if table.step == "decode" and is_rebuilding(context, table, asked):
            return f"a rebuild of {table.identifier} is not done"
        if marker and table.definition and marker.get(DEFINITION) != table.definition:
            return f"the definition of {table.identifier} has changed"
        if table.step == "compute" and not due_windows(context, table).is_empty():
            return f"windows of {table.identifier} are due"
    return None


def record_batches(context: Context) -> None:
    """Copies the commits that ops.batches does not have yet from the snapshot summaries of all but the ops tables."""
    stored = batches.stored
    head = context.lakehouse.head(stored)
    marker = head.markers.get(stored.identifier, {})
    rows: list[dict[str, Any]] = []
    to = dict(marker)
    for table in context.tables.values():
        if table.layer == "ops" or not context.lakehouse.exists(table.stored):
            continue
        try:
            found = commits_of(context, table, marker.get(table.identifier, 0))
        except SchemaMismatchError as error:
            log.debug("%s: its commits are recorded when it is mended", error)  # its own step reports it
            continue
        to |= {table.identifier: max(row["table_batch_id"] for row in found)} if found else {}
        rows += found
    if rows:
        frame = pl.DataFrame(rows, schema={n: t for n, t in stored.schema.items() if n != "batch_id"})
        files = context.lakehouse.write(stored, frame, head.batch_id + 1)
        context.lakehouse.commit_once(Commit(stored, stored.identifier, marker, to, head.batch_id + 1, files))


def commits_of(context: Context, table: Table, after: int) -> list[dict[str, Any]]:
    """Rows of ops.batches for the table's commits later than batch ``after``."""
    found = []
    for snapshot in context.lakehouse.table(table.stored).metadata.snapshots:
        summary = snapshot.summary
        number = int(summary.get("secchi.batch_id") or 0) if summary else 0
        if summary is None or number <= after:
            continue
        found.append(
            {
                "table_name": table.identifier,
                "table_batch_id": number,
                "producer": summary.get("secchi.producer"),
                "from_marker": summary.get("secchi.from"),
                "to_marker": summary.get("secchi.to"),
                "snapshot_id": snapshot.snapshot_id,
                "committed_at": datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
                "run_id": summary.get("secchi.run_id"),
                "rows": int(summary.get("added-records") or 0),
                "segments": summary.get("secchi.segments"),
            }
        )
    return found
