"""The Great Expectations suites as asset checks: on a schedule and on demand, over what was written lately."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.table import Table
from pipelines.config import Config
from pipelines.micro_batch_run import asset_key
from pipelines.run_process import UPKEEP, open_run
from resources.errors import SecchiError

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile

    from data_quality.suites import SuiteResult
    from pipelines.context import Context

EXPECTATIONS = "expectations"
"""Name of the check that every table has."""

MOST_ROWS = 100_000
KEPT_PAGES = 50

_MOST_BYTES = 64 * 2**20
_STEADY = frozenset({"reference", "ops", "quality"})
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


def quality_checks(config: Config, tables: Mapping[str, Table]) -> dg.AssetChecksDefinition:
    """One check a table; all chosen ones run in one process, as importing Great Expectations takes seconds."""
    names = {asset_key(identifier): identifier for identifier in tables}

    @dg.multi_asset_check(
        name="run_suites",
        specs=[_spec(key, identifier, config) for key, identifier in names.items()],
        can_subset=True,
        pool=UPKEEP,
        description="Runs the Great Expectations suites over the rows that were written lately.",
    )
    def quality(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        failed: dict[str, str] = {}
        with open_run(config, context.run.run_id) as lakehouse:
            for key in sorted(context.selected_asset_check_keys):
                table = tables[names[key.asset_key]]
                try:
                    outcome = check_table(lakehouse, table)
                except (SecchiError, OSError, pl.exceptions.PolarsError) as error:
                    failed[table.identifier] = str(error)
                    continue
                if outcome is None:
                    context.log.info(f"{table.identifier}: no rows were written in the last {config.quality.window}")
                else:
                    yield _result(key.asset_key, *outcome)
        if failed:
            line = "; ".join(f"{table}: {error}" for table, error in failed.items())
            raise dg.Failure(line, allow_retries=False)

    return quality


def _spec(key: dg.AssetKey, identifier: str, config: Config) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        EXPECTATIONS,
        asset=key,
        description=f"The Great Expectations suite of {identifier}, over at most {MOST_ROWS:,} rows that were written "
        f"in the last {config.quality.window}.",
    )


def check_table(context: "Context", table: Table) -> tuple[int, "SuiteResult"] | None:
    """Runs a table's suite over its recent rows; returns their number and the outcome, None if there are no rows."""
    rows = recent_rows(context, table)
    if rows.is_empty():
        return None
    from data_quality.suites import run_suite

    folder = context.config.lakehouse.path / "quality" / table.identifier
    now = context.clock()
    outcome = run_suite(table, rows, folder / f"{now:%Y%m%dT%H%M%SZ}.html")
    _keep_newest(folder)
    _record(context, table, rows.height, outcome, now)
    return rows.height, outcome


def _record(context: "Context", table: Table, rows: int, outcome: "SuiteResult", now: datetime) -> None:
    """Appends what a suite found to quality.results."""
    from assets.quality.results import results
    from resources.lakehouse import Commit

    def text(value: Any) -> str | None:
        return json.dumps(value) if value else None

    told = [
        {
            "table_name": table.identifier,
            "checked_at": now,
            "position": position,
            "expectation": found["expectation"],
            "column_names": text(found["columns"]),
            "description": found["description"],
            "severity": found["severity"],
            "is_met": found["success"],
            "rows": rows,
            "unexpected": found["unexpected"],
            "observed": found["observed"],
            "examples": text(found["examples"]),
            "error": found["error"],
            "page": str(outcome.html.absolute()),
            "run_id": context.run_id,
        }
        for position, found in enumerate(outcome.expectations)
    ]
    lakehouse, stored = context.lakehouse, results.stored
    frame = pl.DataFrame(told, {n: t for n, t in stored.schema.items() if n != "batch_id"})
    head = lakehouse.head(stored)
    frm, to = head.markers.get(table.identifier, {}), {"checked_at": now.isoformat()}
    files = lakehouse.write(stored, frame, head.batch_id + 1)
    lakehouse.commit_once(Commit(stored, table.identifier, frm, to, head.batch_id + 1, files))


def _keep_newest(folder: Path) -> None:
    for page in sorted(folder.glob("*.html"))[:-KEPT_PAGES]:
        page.unlink(missing_ok=True)


def recent_rows(context: "Context", table: Table) -> pl.DataFrame:
    """The rows that were committed within ``quality.window``, newest first; of reference and ops tables any.

    When a row was written counts, not its event time: months-old readings that come in now are looked at too. At most
    ``MOST_ROWS``, of the newest files that hold as many.
    """
    from resources.selection import changes

    lakehouse = context.lakehouse
    if not lakehouse.exists(table.stored):
        return pl.DataFrame(schema=table.schema)
    head = lakehouse.head(table.stored).batch_id
    where = changes(_before_window(context, table, head), head)
    files = _newest_files(context, table, lakehouse.files(table.stored, where))
    rows = lakehouse.read_files(table.stored, files, where)
    return rows.sort("batch_id", descending=True, maintain_order=True).head(MOST_ROWS)


def _before_window(context: "Context", table: Table, head: int) -> int:
    """The last batch of a table that was committed before the window began."""
    from assets.ops.batches import batches
    from resources.selection import Among, Ranges

    if table.layer in _STEADY:
        return 0
    context.lakehouse.table(batches.stored, refresh=True)
    since = context.clock() - context.config.quality.window
    where = (Among("table_name", [table.identifier]), Ranges("committed_at", [(since, _FAR)]))
    first = context.lakehouse.read(batches.stored, *where, columns=["table_batch_id"]).to_series().min()
    return head if first is None else int(str(first)) - 1


def _newest_files(context: "Context", table: Table, files: list["DataFile"]) -> list["DataFile"]:
    """The newest files, at least one, within the bounds of rows and memory."""
    from pyiceberg.conversions import from_bytes
    from pyiceberg.types import LongType

    from resources.selection import BATCH_ID

    field = context.lakehouse.table(table.stored).schema().find_field(BATCH_ID).field_id
    chosen: list[DataFile] = []
    rows = size = 0
    for file in sorted(files, key=lambda f: from_bytes(LongType(), f.upper_bounds[field]), reverse=True):
        rows, size = rows + file.record_count, size + file.file_size_in_bytes
        if chosen and (rows > MOST_ROWS or size > _MOST_BYTES):
            break
        chosen.append(file)
    return chosen


def _result(key: dg.AssetKey, rows: int, outcome: "SuiteResult") -> dg.AssetCheckResult:
    failures = [e for e in outcome.expectations if not e["success"]]
    is_critical = any(e["severity"] == "critical" for e in failures)
    metadata: dict[str, Any] = {
        "rows": rows,
        "evaluated": outcome.evaluated,
        "failed": outcome.failed,
        "page": dg.MetadataValue.path(str(outcome.html.absolute())),
    }
    if failures:
        metadata["failures"] = dg.MetadataValue.json([_failure(e) for e in failures])
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=EXPECTATIONS,
        passed=outcome.success,
        severity=dg.AssetCheckSeverity.ERROR if is_critical else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
        description=f"{outcome.failed} of {outcome.evaluated} expectations are not met by {rows:,} rows"
        if failures
        else None,
    )


def _failure(expectation: dict[str, Any]) -> dict[str, Any]:
    shown = ("description", "columns", "severity", "unexpected", "observed", "examples", "error")
    return {name: expectation[name] for name in shown if expectation[name] not in (None, [], "")}
