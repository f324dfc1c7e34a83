"""kill -9 of a run's worker, of Dagster's daemon and of its code server; the tables move again and are whole."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from pipelines.config import load_config
from pipelines.services import dagster_home, stages
from pipelines.up import Child, Supervisor
from tests.faults.points import KILL_FILE
from tests.faults.test_kill import BATCHES, KEYS, VARYING, filled
from tests.pipelines.plant import Plant, compared
from tests.services import free_port

CONFIG = """
[lakehouse]
path = "lake"
[time]
idle = "5s"
[micro_batch]
idle = "2s"
pause = "100ms"
"""
ROOT = Path(__file__).parents[2]
PARTS = (BATCHES[0], *(BATCHES[1][n : n + 18] for n in range(0, len(BATCHES[1]), 18)))
ARRIVAL = [*VARYING, "received_at", "attributes"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    plant = filled(tmp_path_factory.mktemp("reference"), PARTS)
    plant.drain()
    return {name: state(plant, name) for name in KEYS}


def state(plant: Plant, table: str) -> pl.DataFrame:
    return compared(plant.table(table).drop(ARRIVAL, strict=False), KEYS[table])


class Running:
    """Code server and daemon of a lakehouse, under the supervisor, with the plant that feeds it."""

    def __init__(self, folder: Path, supervisor: Supervisor, told: list[str]) -> None:
        self.supervisor, self.told, self.kill_file = supervisor, told, folder / "kill"
        self.plant = Plant(folder / "lake")
        (folder / "secchi.toml").write_text(CONFIG)
        self.config_path = folder / "secchi.toml"

    def start(self) -> None:
        for stage in stages(load_config(self.config_path), self.config_path, "127.0.0.1", free_port()):
            self.supervisor.start(*(self._armed(child) for child in stage if child.name != "web"))

    def _armed(self, child: Child) -> Child:
        """The child with the definitions that die at the point which the kill file names."""
        command, environment = list(child.command), {**child.environment, KILL_FILE: str(self.kill_file)}
        if child.name == "code":
            command[command.index("-m", 3) + 1] = "tests.faults.definitions"
            command[command.index("--empty-working-directory")] = f"--working-directory={ROOT}"
        return replace(child, command=command, environment=environment)

    def until(self, condition: Callable[[], Any], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not come true; {self.told}"
            self.supervisor.wait(0.25)

    def land(self, part: list[bytes]) -> None:
        self.plant.now = datetime.now(UTC)
        self.plant.land(part)

    def kill(self, name: str) -> None:
        pid = self.supervisor.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def rows(self, table: str) -> int:
        return self.plant.table(table).height

    def are_windows_final(self) -> bool:
        return bool(self.plant.table("gold.sensor_windows_1m")["is_final"].all())

    def runs(self) -> list[Path]:
        """The runs that hold a lock."""
        return list(self.plant.folder.glob("runs/[!.]*"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    told: list[str] = []
    with Supervisor(tmp_path / "logs", told.append) as supervisor:
        yield Running(tmp_path, supervisor, told)


def test_run_that_is_at_work_at_the_end_is_cancelled(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    running.land(PARTS[0])
    running.start()
    running.until(running.runs)
    running.supervisor.stop()
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home(load_config(running.config_path))))
    with dg.DagsterInstance.get() as instance:
        newest = instance.get_runs(limit=1)[0]
    assert newest.status == dg.DagsterRunStatus.CANCELED
    assert not running.runs()


def test_killed_worker_daemon_and_code_server(running: Running, reference: dict[str, pl.DataFrame]) -> None:
    """Input has stopped, and windows become final; then one process after the other dies while a run is at work."""
    first, silver, *parts, last = PARTS
    running.land(first)
    running.plant.drain()
    assert not running.are_windows_final()
    running.start()
    running.until(running.are_windows_final)
    running.until(lambda: not running.runs())

    running.kill_file.write_text("inside commit of silver.sensor_readings")
    running.land(silver)
    running.until(lambda: not running.kill_file.exists())
    running.until(lambda: running.rows("silver.sensor_readings") > len(first))
    assert running.told == [], "only the worker died"

    for name, part in zip(("daemon", "code"), parts, strict=True):
        running.until(lambda: not running.runs())
        running.land(part)
        running.until(running.runs)
        running.kill(name)
        running.until(lambda: running.told)
        assert running.told.pop().startswith(f"{name} was ended by SIGKILL; it is started again in 1 s")
    running.land(last)
    running.until(lambda: running.rows("bronze.mqtt_messages") == sum(map(len, PARTS)) and not running.runs())
    for table, expected in reference.items():
        assert state(running.plant, table).equals(expected), table
    assert running.told == []
