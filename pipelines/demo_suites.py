"""The suites of the demo: run in Dagster, after everything else, and counted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from pipelines.config import Config
from pipelines.services import child_environment, dagster_home


def run_suites(
    config: Config, config_file: Path, wait: Callable[[Callable[[], bool]], object]
) -> tuple[list[str], list[str]]:
    """Asks Dagster for the quality job and waits for all runs.

    Args:
        config: the configuration of the running demo.
        config_file: where it stands.
        wait: returns once the condition that it is given holds.

    Returns:
        A line for each check or run that failed, and for each check that warns (bad payloads were quarantined, a
        reading is months old).
    """
    home = dagster_home(config)
    command = ["job", "launch", "-w", str(home / "workspace.yaml"), "-j", "quality"]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dagster", *command],
        env={**os.environ, **child_environment(config_file, home)},
        check=True,
        capture_output=True,
    )
    os.environ["DAGSTER_HOME"] = str(home)  # where the instance's own settings look for it
    with dg.DagsterInstance.get() as instance:
        busy = dg.RunsFilter(
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ]
        )
        wait(lambda: not instance.get_runs(busy, limit=1))
        failed_runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        reasons = [f"run of {run.job_name}: {_why(instance, run.run_id)}" for run in failed_runs]
        results = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), ascending=True
        )
    newest = {}
    for record in results:
        event = record.event_log_entry.dagster_event
        evaluation = event.asset_check_evaluation_data if event else None
        if evaluation:
            newest[evaluation.asset_check_key.to_user_string()] = evaluation
    failures, warnings = [*reasons], []
    for name, evaluation in sorted(newest.items()):
        if evaluation.passed:
            continue
        if evaluation.severity == dg.AssetCheckSeverity.ERROR:
            failures.append(f"check {name}: failed")
        else:
            warnings.append(f"check {name}: warns, which does not count as failed")
    return failures, warnings


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """What the first failed step of a run, or the run itself, said."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run_id, of_type=kind).records:
            event = record.event_log_entry.dagster_event
            if event and event.is_step_failure and event.step_failure_data.error:
                error = event.step_failure_data.error
                return (error.cause or error).message.strip()
            if event and event.message:
                return event.message
    return "failed without a reason"
