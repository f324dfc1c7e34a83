"""Running everything: children are kept alive, and none is left at the end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines import up
from pipelines.up import Child, Supervisor
from resources.errors import SourceUnavailableError
from tests.services import free_port

ROOT = Path(__file__).resolve().parents[2]

SECCHI = [sys.executable, "-P", "-m", "pipelines.cli"]
SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"
# Has a child in another process group, which a signal to its own group would miss.
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], process_group=0, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""


CALCULATION = """
[[calculation]]
name = "hottest_1h"
from = "silver.sensor_readings"
by = ["site_id", "device_id"]
window = {kind = "tumbling", size = "1h"}
lateness = "2m"
aggregate = {hottest = "max(measurement)"}
"""


def python(name: str, code: str) -> Child:
    return Child(name, [sys.executable, "-c", code])


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(up, "_GRACE", 0.5)
    monkeypatch.setattr(up, "_FIRST_DELAY", 0.1)
    with Supervisor(tmp_path / "logs", told.append) as made:
        yield made


def lines_of(supervisor: Supervisor, name: str, count: int) -> list[str]:
    """What a child printed, as soon as it printed ``count`` lines."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        supervisor.wait(0.05)
        lines = [line for line in supervisor.log_path(name).read_text().splitlines() if not line.startswith("---")]
        if len(lines) >= count:
            return lines
    raise AssertionError(f"{name} printed too little: {lines}")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_stop_leaves_nothing_of_a_session(supervisor: Supervisor) -> None:
    supervisor.start(python("parent", PARENT + SLEEP))
    grandchild = int(lines_of(supervisor, "parent", 1)[0])
    assert is_running(grandchild)
    supervisor.stop()
    assert not is_running(grandchild)


def test_dead_child_is_started_again_without_what_it_left(supervisor: Supervisor, told: list[str]) -> None:
    supervisor.start(python("parent", PARENT + "sys.exit(3)"))
    first, second = map(int, lines_of(supervisor, "parent", 2)[:2])
    assert not is_running(first)
    assert told[0].startswith("parent ended with exit code 3; it is started again in 0.1 s, its log is ")
    assert len(told) < 2 or "in 0.2 s" in told[1]
    supervisor.stop()
    assert not is_running(second)


def test_child_with_an_end_is_not_started_again(supervisor: Supervisor, told: list[str]) -> None:
    worker = [sys.executable, "-c", f"print('done', flush=True); {SLEEP.replace('60', '0.3')}"]
    supervisor.start(Child("worker", worker, has_end=True))
    assert not supervisor.has_ended("worker")
    supervisor.wait(1.5)
    assert supervisor.has_ended("worker") and not told
    assert lines_of(supervisor, "worker", 1) == ["done"]


def test_one_child_is_stopped_alone(supervisor: Supervisor) -> None:
    for name in ("one", "two"):
        supervisor.start(python(name, f"import os; print(os.getpid(), flush=True); {SLEEP}"))
    one, two = (int(lines_of(supervisor, name, 1)[0]) for name in ("one", "two"))
    supervisor.stop("one")
    assert not is_running(one) and is_running(two)


def test_killed_child_is_told_as_such(supervisor: Supervisor, told: list[str]) -> None:
    supervisor.start(python("victim", f"import os; print(os.getpid(), flush=True); {SLEEP}"))
    os.kill(int(lines_of(supervisor, "victim", 1)[0]), signal.SIGKILL)
    lines_of(supervisor, "victim", 2)
    assert told[0].startswith("victim was ended by SIGKILL; ")


def test_ready_is_waited_for(supervisor: Supervisor, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    slow = f"import pathlib, time; time.sleep(0.3); pathlib.Path({str(flag)!r}).touch(); time.sleep(60)"
    supervisor.start(Child("slow", [sys.executable, "-c", slow], is_ready=flag.exists))
    assert flag.exists()
    with pytest.raises(SourceUnavailableError, match=r"never: not ready after 0\.2 s"):
        supervisor.start(Child("never", [sys.executable, "-c", SLEEP], is_ready=lambda: False), ready_within=0.2)


def test_children_take_signals_that_the_parent_ignored(tmp_path: Path, told: list[str]) -> None:
    shown = "import signal; print(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, flush=True); "
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Supervisor(tmp_path, told.append) as supervisor:
            supervisor.start(python("child", shown + SLEEP))
            assert lines_of(supervisor, "child", 1) == ["True"]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_children_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    child = f"import os; print(os.getpid(), flush=True); {SLEEP}"
    code = (
        "import sys; from pathlib import Path; from pipelines.up import Child, Supervisor\n"
        "with Supervisor(Path(sys.argv[1]), print) as supervisor:\n"
        "    supervisor.start(Child('child', [sys.executable, '-c', sys.argv[2]]))\n"
        "    supervisor.run()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path), child], env=environment()) as supervisor:
        log, deadline = tmp_path / "child.log", time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") >= 2):
            assert time.monotonic() < deadline, "the child was not started"
            time.sleep(0.05)
        supervisor.kill()
    pid = int(log.read_text().splitlines()[1])
    while is_running(pid):
        assert time.monotonic() < deadline, "it outlives its supervisor"
        time.sleep(0.05)


def test_change_is_asked_for_by_a_signal(supervisor: Supervisor) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert supervisor.run()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not supervisor.run()


def test_signal_ends_run(supervisor: Supervisor) -> None:
    supervisor.start(python("sleeper", SLEEP))
    os.kill(os.getpid(), signal.SIGTERM)
    supervisor.run()
    assert supervisor.is_stopping
    supervisor.start(python("late", "print('x')"))
    assert not supervisor.log_path("late").exists()


def environment() -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if k not in ("SECCHI_CONFIG", "DAGSTER_HOME")}
    return {**found, "PYTHONPATH": str(ROOT)}


def secchi(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [*SECCHI, *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def _wait_for_line(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _wait_for_asset(port: int, name: str) -> None:
    """Until the web server, which starts again meanwhile, shows it."""
    deadline, shown = time.monotonic() + 120, ""
    while f'"{name}"' not in shown:
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)
        with suppress(OSError):
            shown = _ask(port, "{assetNodes {assetKey {path}}}")


def _ask(port: int, query: str) -> str:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def test_up_runs_dagster_and_ends_with_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "secchi.toml").write_text('[lakehouse]\npath = "lake"\n')
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "__init__.py").write_text(
        "raise RuntimeError('the folder of the user was taken for ours')\n"
    )
    port, log = free_port(), tmp_path / "up.log"
    with log.open("wb") as out:
        command = [*SECCHI, "up", "--port", str(port)]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=out, stderr=out)
    try:
        _wait_for_line(log, "running; the UI is", process)
        children = _children(process.pid)
        assert len(children) == 3, "code server, daemon and web server; there is nothing to collect"
        states = _ask(
            port, "{workspaceOrError {... on Workspace {locationEntries {locationOrLoadError {__typename}}}}}"
        )
        assert "RepositoryLocation" in states and "PythonError" not in states
        second = secchi(tmp_path, "up", "--port", str(free_port()))
        assert second.returncode == 2 and "another 'secchi up' runs" in second.stderr

        with (tmp_path / "secchi.toml").open("a") as config:
            config.write(CALCULATION)
        assert f"secchi up (pid {process.pid}) takes" in secchi(tmp_path, "reload").stdout
        _wait_for_line(log, "tables, checks and schedules are taken anew", process)
        _wait_for_asset(port, "hottest_1h")
        children += _children(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    assert code == 0, log.read_text()
    assert not [member for child in children for member in up._members(child)]


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found
