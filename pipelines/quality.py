"""The Great Expectations suites as asset checks: on a schedule and on demand, over what was written lately."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
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
    from data_quality.suites import SuiteResult
    from pipelines.context import Context

EXPECTATIONS = "expectations"
"""Name of the check that every table has."""

KEPT_PAGES = 50


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
        outcomes: list[SuiteResult] = []
        with open_run(config, context.instance, context.run) as lakehouse:
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
                    outcomes.append(outcome[1])
                    context.op_execution_context.log_event(_observed(key.asset_key, *outcome))
                    yield _result(key.asset_key, *outcome)
        if outcomes:
            context.op_execution_context.log_event(_recorded(outcomes))
        if failed:
            line = "; ".join(f"{table}: {error}" for table, error in failed.items())
            raise dg.Failure(line, allow_retries=False)

    return quality


def _spec(key: dg.AssetKey, identifier: str, config: Config) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        EXPECTATIONS,
        asset=key,
        description=f"The Great Expectations suite of {identifier}, over rows that were written in the last "
        f"{config.quality.window}, and what other tables say of it.",
    )


def _observed(key: dg.AssetKey, rows: int, outcome: "SuiteResult") -> dg.AssetObservation:
    """Numbers that Dagster plots over time beside those of the table's materializations."""
    numbers = {"expectations_not_met": outcome.failed, "expectations": outcome.evaluated, "rows_checked": rows}
    return dg.AssetObservation(key, metadata=numbers)


def _recorded(outcomes: Sequence["SuiteResult"]) -> dg.AssetMaterialization:
    """What a run of the suites has put into quality.results, to be plotted."""
    unmet = [e["severity"] for outcome in outcomes for e in outcome.expectations if not e["success"]]
    numbers = {
        "rows": sum(outcome.evaluated for outcome in outcomes),
        "tables": len(outcomes),
        "tables_not_met": sum(not outcome.success for outcome in outcomes),
        "not_met_critical": unmet.count("critical"),
        "not_met_warning": unmet.count("warning"),
    }
    return dg.AssetMaterialization(asset_key("quality.results"), metadata=numbers)


def check_table(context: "Context", table: Table) -> tuple[int, "SuiteResult"] | None:
    """Runs a table's suite over its recent rows; returns their number and the outcome.

    Returns None where there is nothing to judge: no rows were written lately, and no other table says anything of it.
    """
    from data_quality.suites import run_suite
    from pipelines.measures import measures_of
    from pipelines.recent_rows import recent_rows

    rows = recent_rows(context, table)
    measures = measures_of(context, table, rows)
    if rows.is_empty() and all(measure.rows.is_empty() for measure in measures):
        return None
    folder = context.config.lakehouse.path / "quality" / table.identifier
    now = context.clock()
    outcome = run_suite(table, rows, folder / f"{now:%Y%m%dT%H%M%SZ}.html", measures)
    _keep_newest(folder)
    _record(context, table, rows.height, outcome, now)
    return rows.height, outcome


def _record(context: "Context", table: Table, rows: int, outcome: "SuiteResult", now: datetime) -> None:
    """Appends what a suite found to quality.results."""
    from assets.quality.results import results
    from resources.commit import Commit

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
