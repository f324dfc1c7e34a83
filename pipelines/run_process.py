"""The process of a Dagster run: its context, and a lock that says that it lives.

Dagster's code server notices within a second that a run's process is gone. It cannot when it died with it (power loss,
SIGKILL of everything): such a run would stand as started for ever and hold the next one. So each run holds a lock file
``<lakehouse>/runs/<run id>`` while it works; a file that nobody holds tells of a run that is dead. A run that died
before it had its lock is known by its silence.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from pipelines.config import Config
from resources.errors import SecchiError

if TYPE_CHECKING:
    from pipelines.context import Context

UPKEEP = "upkeep"
"""Pool of everything but micro-batches: training, quality, maintenance and housekeeping run one after another."""

OWNER = "team:telemetry"

IN_FLIGHT = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
_BEGUN = tuple(status for status in IN_FLIGHT if status != dg.DagsterRunStatus.QUEUED)
_LONGEST_SILENCE = 45.0
"""Seconds without an event and without a lock after which a run counts as dead. Its process needs a few from its start
to its lock. One that comes later than this finds its run failed and ends, and two at once would not write anything
twice."""

FINISHED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@contextmanager
def open_run(config: Config, instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator["Context"]:
    """Opens the lakehouse for a run and holds the run's lock meanwhile.

    A run whose process is asked to end, as everything is at the end of ``secchi up``, is cancelled and has not failed.

    Raises:
        dagster.Failure: with the one line of a ``SecchiError``.
    """
    from pipelines.context import open_context

    try:
        context = open_context(config, run.run_id)
        with _alive(_folder(config), run.run_id):
            yield context
    except dg.DagsterExecutionInterruptedError:
        instance.report_run_canceling(run)
        raise
    except SecchiError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _folder(config: Config) -> Path:
    return config.lakehouse.path / "runs"


@contextmanager
def _alive(folder: Path, run_id: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    draft, path = folder / f".{run_id}.{os.getpid()}", folder / run_id
    lock = os.open(draft, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Locked before it can be seen, so that a file without a holder always means a dead process.
        draft.rename(path)
        yield
    finally:
        path.unlink(missing_ok=True)
        draft.unlink(missing_ok=True)
        os.close(lock)


def fail_dead_runs(instance: dg.DagsterInstance, config: Config) -> list[str]:
    """Reports runs as failed whose process is gone, and removes their lock files; returns their ids."""
    failed = []
    for path in sorted(_folder(config).glob("[!.]*")):
        if _is_held(path):
            continue
        run = instance.get_run_by_id(path.name)
        if run is not None and not run.is_finished:
            _fail(instance, run)
            failed.append(run.run_id)
        path.unlink(missing_ok=True)
    for run in instance.get_runs(dg.RunsFilter(statuses=list(_BEGUN))):
        if not (_folder(config) / run.run_id).exists() and _silence(instance, run.run_id) > _LONGEST_SILENCE:
            _fail(instance, run)
            failed.append(run.run_id)
    return failed


def _fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_failed(run, "The process of this run is gone; what it had committed stands.")


def _silence(instance: dg.DagsterInstance, run_id: str) -> float:
    """Seconds since anything was heard of a run: its last event, or its record where it has none."""
    if events := instance.get_records_for_run(run_id, limit=1, ascending=False).records:
        return time.time() - events[0].timestamp
    record = instance.get_run_record_by_id(run_id)
    return time.time() - record.create_timestamp.timestamp() if record else 0.0


def _is_held(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True  # its run has just ended
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def in_flight(instance: dg.DagsterInstance, job: str) -> str | None:
    """The run of a job that is queued or working, in words; None if there is none."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=list(IN_FLIGHT)), limit=1)
    if not records:
        return None
    run = records[0].dagster_run
    return f"run {run.run_id[:8]} of {job} is {run.status.value.lower().replace('_', ' ')}"
