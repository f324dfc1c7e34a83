"""What a run of the micro_batch job does: carries micro-batches until nothing comes, and tells Dagster of them."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg
import polars as pl

if TYPE_CHECKING:
    from assets.table import Table
    from pipelines.context import Context, TableResult

CONTRACT = "contract"
"""Name of the check that every streaming table has."""

CONTRACT_REASONS = frozenset(
    {
        "wrong_type",
        "missing_required",
        "not_finite",
        "below_minimum",
        "above_maximum",
        "time_too_late",
        "time_too_early",
        "segment_unreadable",
        "segment_unrecorded",
    }
)
"""Reason codes of ``data_quality.contract`` (what a sender or a calculation gets wrong) and of bronze (a damaged disk).
Others (a payload that is no JSON, a conflict of keys) are told as numbers and do not fail the check."""

FAILED_TABLES = "secchi/failed_tables"
"""Run tag: the tables that failed in a run, by which the sensor gives them time."""


Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass
class _Tally:
    """What was done to one table since it was last told of."""

    rows: int = 0
    bytes: int = 0
    batches: int = 0
    batch_id: int = 0
    duplicates: int = 0
    lag_seconds: float | None = None
    quarantined: dict[str, int] = field(default_factory=dict)
    new_fields: dict[str, str] = field(default_factory=dict)

    def add(self, result: "TableResult") -> None:
        """Takes one micro-batch in."""
        self.rows += result.rows
        self.bytes += result.bytes
        self.batches += 1
        self.batch_id = result.batch_id
        self.duplicates += result.duplicates
        self.lag_seconds = result.lag_seconds if result.lag_seconds is not None else self.lag_seconds
        _add(self.quarantined, result.quarantined)
        self.new_fields |= result.new_fields


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for reason, count in more.items():
        total[reason] = total.get(reason, 0) + count


@dataclass
class Report:
    """Collects the results of micro-batches and turns them into Dagster's events.

    A check speaks of all batches of its run: Dagster keeps one result of a check for each run.
    """

    context: "Context"
    began: datetime
    errors: dict[str, str] = field(default_factory=dict)
    _tallies: dict[str, _Tally] = field(default_factory=dict)
    _quarantined: dict[str, dict[str, int]] = field(default_factory=dict)
    _problems: dict[str, str | None] = field(default_factory=dict)

    def add(self, results: list["TableResult"]) -> None:
        """Takes the results of one micro-batch in; a table that succeeds after it failed is no longer an error."""
        for result in results:
            if result.error:
                self.errors[result.table] = result.error
                continue
            self.errors.pop(result.table, None)
            if result.has_looked:
                self._problems[result.table] = result.problem
            if result.did_work:
                self._tallies.setdefault(result.table, _Tally()).add(result)

    def events(self) -> Iterator[Event]:
        """What was done to each table since the last call: its materialization, and how its contract was kept.

        Upstream first, as Dagster demands of an op: a window that became final may be the first that was done.
        """
        for identifier, table in self.context.tables.items():
            if (tally := self._tallies.get(identifier)) is None:
                continue
            yield dg.AssetMaterialization(asset_key(identifier), metadata=self._metadata(table, tally))
            _add(self._quarantined.setdefault(identifier, {}), tally.quarantined)
            if has_contract(table):
                yield self._check(table)
        self._tallies.clear()

    def quiet_checks(self, identifiers: Collection[str]) -> Iterator[Event]:
        """Results for tables to which nothing came, where a result was promised."""
        for identifier in sorted(set(identifiers) - set(self._quarantined) - set(self.errors)):
            yield self._check(self.context.tables[identifier])

    def _metadata(self, table: "Table", tally: _Tally) -> dict[str, Any]:
        iceberg = self.context.lakehouse.table(table.stored, refresh=True)
        snapshot = iceberg.current_snapshot()
        metadata: dict[str, Any] = {
            "rows": tally.rows,
            "bytes": tally.bytes,
            "micro_batches": tally.batches,
            "quarantined": sum(tally.quarantined.values()),
            "duplicates": tally.duplicates,
            "batch_id": tally.batch_id,
        }
        if tally.lag_seconds is not None:
            metadata["lag_seconds"] = round(tally.lag_seconds, 3)
        if tally.new_fields:
            metadata["new_fields"] = tally.new_fields
        if tally.quarantined:
            metadata["quarantined_reasons"] = tally.quarantined
        if snapshot is not None and snapshot.summary is not None:
            # A snapshot id does not fit into the whole numbers of a browser.
            metadata["snapshot_id"] = str(snapshot.snapshot_id)
            metadata["dagster/row_count"] = int(snapshot.summary.get("total-records") or 0)
        return metadata

    def _check(self, table: "Table") -> dg.AssetCheckEvaluation:
        if table.layer == "reference":
            return self._side_input_check(table)
        reasons = self._quarantined.get(table.identifier, {})
        broken = {reason: count for reason, count in reasons.items() if reason in CONTRACT_REASONS}
        metadata: dict[str, Any] = {"violations": sum(broken.values()), "quarantined": sum(reasons.values())}
        told = f"{sum(broken.values())} of {sum(reasons.values())} quarantined rows broke the contract"
        if broken:
            metadata |= {"reasons": broken, "example": self._example(table, sorted(broken))}
        return dg.AssetCheckEvaluation(
            asset_key(table.identifier),
            CONTRACT,
            passed=not broken,
            metadata=metadata,
            severity=dg.AssetCheckSeverity.WARN,
            description=told if broken else None,
        )

    def _side_input_check(self, table: "Table") -> dg.AssetCheckEvaluation:
        """Whether the source could be used when it was last looked at, in this run or before."""
        from pipelines.reference_refresh import marker_of, problem_in, version_in

        marker = marker_of(self.context, table)
        problem = self._problems.get(table.identifier, problem_in(marker))
        told = f"{problem}; version {version_in(marker)} goes on serving" if problem else None
        return dg.AssetCheckEvaluation(
            asset_key(table.identifier),
            CONTRACT,
            passed=problem is None,
            metadata={"version": version_in(marker), **({"problem": problem} if problem else {})},
            severity=dg.AssetCheckSeverity.ERROR,
            description=told,
        )

    def _example(self, table: "Table", reasons: list[str]) -> str:
        """The message of the newest record that this run quarantined."""
        from assets.quarantine.records import records
        from resources.selection import FAR_FUTURE, Among, Ranges

        self.context.lakehouse.table(records.stored, refresh=True)
        where = (Among("stage", [table.identifier]), Ranges("quarantined_at", [(self.began, FAR_FUTURE)]))
        columns = ["reason", "message", "quarantined_at"]
        rows = self.context.lakehouse.read(records.stored, *where, columns=columns)
        newest = rows.filter(pl.col("reason").is_in(reasons)).sort("quarantined_at").tail(1)
        return str(newest["message"].item()) if newest.height else "none is left in quarantine.records"


def asset_key(identifier: str) -> dg.AssetKey:
    """``layer.table`` as Dagster spells it."""
    return dg.AssetKey(identifier.split("."))


def has_contract(table: "Table") -> bool:
    """Whether the ``contract`` check speaks of the table; other reference rows ship with the product."""
    from assets.side_input import Versions

    return table.layer != "reference" or isinstance(table.function, Versions)


def carry(
    run: dg.AssetExecutionContext, context: "Context", only: Collection[str] | None
) -> Iterator[dg.MaterializeResult[None]]:
    """Carries micro-batches through all tables, or ``only`` some, until nothing came for a while or time is up.

    Raises:
        dagster.Failure: at the end, if a table failed; the others were carried all the same.
    """
    report = Report(context, context.clock())
    told = time.monotonic()
    for results in _until_idle(context, only):
        report.add(results)
        if time.monotonic() - told >= context.config.micro_batch.report_every.total_seconds():
            for event in report.events():
                run.log_event(event)
            told = time.monotonic()
    yield from _last_events(run, report)
    if report.errors:
        _fail(run, report.errors)


def _until_idle(context: "Context", only: Collection[str] | None) -> Iterator[list["TableResult"]]:
    """Micro-batches until nothing came for ``idle`` or ``duration`` has passed; at least one."""
    from pipelines.micro_batch import MicroBatches

    settings, batches = context.config.micro_batch, MicroBatches(context, only)
    began = worked = time.monotonic()
    while True:
        results = batches.run_once()
        yield results
        now = time.monotonic()
        if now - began >= settings.duration.total_seconds():
            return
        if any(result.did_work for result in results):
            worked = now
        elif now - worked >= settings.idle.total_seconds():
            return
        else:
            time.sleep(settings.pause.total_seconds())


def _last_events(run: dg.AssetExecutionContext, report: Report) -> Iterator[dg.MaterializeResult[None]]:
    """The last materializations as results of the op: steps of the same run that need them start only then."""
    for event in report.events():
        if isinstance(event, dg.AssetMaterialization):
            yield dg.MaterializeResult(asset_key=event.asset_key, metadata=event.metadata)
        else:
            run.log_event(event)
    promised = {".".join(key.asset_key.path) for key in run.selected_asset_check_keys}
    for event in report.quiet_checks(promised):
        run.log_event(event)


def _fail(run: dg.AssetExecutionContext, errors: Mapping[str, str]) -> NoReturn:
    run.instance.add_run_tags(run.run.run_id, {FAILED_TABLES: ",".join(sorted(errors))})
    told = (error if error.startswith(table) else f"{table}: {error}" for table, error in sorted(errors.items()))
    line = "; ".join(told)
    raise dg.Failure(line, metadata=dict(errors), allow_retries=False)
