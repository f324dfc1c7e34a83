import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect.instances import Instance
from pipelines.collect.mqtt import SOURCE
from pipelines.collect.runner import _supervise, collect
from pipelines.config import Config, LakehouseConfig, parse_config
from pipelines.settings.mqtt import MqttBroker
from resources.errors import ConfigurationError
from resources.landing import read_segment, recover_streams, remove_segment, sealed_segments
from tests.collect.mosquitto import mosquitto, publish
from tests.resources.snmpd import snmpd
from tests.services import free_port

PROCESS = """
import logging, sys
from pathlib import Path
from pipelines.collect.runner import run_collectors
from pipelines.config import load_config
logging.basicConfig(level=logging.INFO)
sys.exit(run_collectors(lambda: load_config(Path(sys.argv[1]))))
"""


def write_config(folder: Path, port: int) -> Path:
    path = folder / "secchi.toml"
    path.write_text(f'[[mqtt]]\nname = "factory"\nport = {port}\ntopics = ["test/#"]\nreconnect_min = "50ms"\n')
    return path


@contextmanager
def collectors(config: Path) -> Iterator["subprocess.Popen[str]"]:
    """The collector process; it is killed at the end if it still runs."""
    command = [sys.executable, "-c", PROCESS, str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def status_of(folder: Path) -> dict[str, Any]:
    path = Instance(folder / "data").status_path
    status: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return status


def is_connected(folder: Path, process: "subprocess.Popen[str]") -> bool:
    status = status_of(folder)
    return bool(status.get("pid") == process.pid and status["mqtt"]["factory"]["connected"])


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def landed(root: Path) -> list[bytes]:
    return [p for s in sealed_segments(root, SOURCE) for p in read_segment(s.path)[0]["payload"].to_pylist()]


def recovered(root: Path) -> list[bytes]:
    recover_streams(root, SOURCE, dict)
    return landed(root)


def test_a_process_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    landing, expected = tmp_path / "data" / "landing", [b"%05d" % n for n in range(5000)]
    with mosquitto(tmp_path / "broker", max_inflight=20) as broker:
        config = write_config(tmp_path, broker.port)
        publishing = threading.Thread(target=publish, args=(broker.port, expected))
        with collectors(config) as first:
            wait_until(lambda: is_connected(tmp_path, first))
            time.sleep(0.2)
            publishing.start()
            wait_until(lambda: sum(p.stat().st_size for p in landing.rglob("*.arrows")) > 20_000)
            first.kill()
            first.wait()
        publishing.join()
        before = recovered(landing)
        assert 0 < len(before) < len(expected), "it was killed in the middle"
        with collectors(config) as second:
            wait_until(lambda: set(landed(landing)) >= set(expected))
            second.terminate()
            assert second.wait(10) == 0
    assert set(landed(landing)) == set(expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with mosquitto(tmp_path / "broker") as broker, collectors(write_config(tmp_path, broker.port)) as process:
        wait_until(lambda: is_connected(tmp_path, process))
        time.sleep(0.2)
        publish(broker.port, [b"a", b"b"])
        wait_until(lambda: status_of(tmp_path)["landing"][SOURCE]["durable"] == 2)
        process.send_signal(number)
        assert process.wait(3) == 0
        assert process.stderr
        lines = process.stderr.read().splitlines()
    assert [line.split(":")[0] for line in lines] == ["INFO"], "one line: connected"
    status = status_of(tmp_path)
    assert status["mqtt"]["factory"] == {
        "connected": False,
        "received": 2,
        "durable": 2,
        "reconnects": 0,
        "last_error": None,
    }
    assert status["landing"] == {SOURCE: {"received": 2, "durable": 2, "writable": True}}
    assert status["snmp"] == {}
    assert status["started_at"] <= status["updated_at"]
    assert landed(tmp_path / "data" / "landing") == [b"a", b"b"]


def test_only_one_process_collects_for_a_lakehouse(tmp_path: Path) -> None:
    config = Config(
        lakehouse=LakehouseConfig(path=tmp_path), mqtt=[MqttBroker(name="a", port=free_port(), topics=["t"])]
    )

    async def scenario() -> None:
        stop = asyncio.Event()
        first = asyncio.create_task(collect(config, stop))
        await asyncio.sleep(0.1)
        with pytest.raises(ConfigurationError, match=r"another process collects for .*collectors\.lock is locked"):
            await collect(config, stop)
        stop.set()
        await first
        await collect(config, stop)

    asyncio.run(scenario())


def test_a_lakehouse_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = Config(
        lakehouse=LakehouseConfig(path=tmp_path / "file"), mqtt=[MqttBroker(name="a", port=1, topics=["t"])]
    )
    with pytest.raises(ConfigurationError, match=r"lakehouse\.path: cannot write"):
        asyncio.run(collect(config, asyncio.Event()))


def test_nothing_to_collect_is_said(tmp_path: Path) -> None:
    config = Config(lakehouse=LakehouseConfig(path=tmp_path))
    with pytest.raises(ConfigurationError, match=r"no \[\[mqtt\]\], \[\[snmp\.targets\]\], \[snmp_traps\]"):
        asyncio.run(collect(config, asyncio.Event()))


def test_each_source_has_a_landing_stream_of_its_own(tmp_path: Path) -> None:
    document = {
        "lakehouse": {"path": str(tmp_path)},
        "mqtt": [{"name": "a", "port": free_port(), "topics": ["t"]}],
        "snmp": {
            "modules": {"system": {"get": ["1.3.6.1.2.1.1.3.0"]}},
            "targets": [
                {"host": "127.0.0.1", "port": free_port(), "modules": ["system"], "timeout": 0.1, "retries": 0}
            ],
        },
    }

    async def scenario() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(collect(parse_config(document), stop))
        await asyncio.sleep(0.2)
        streams = sorted(str(p.relative_to(tmp_path / "landing").parent) for p in (tmp_path / "landing").glob("*/*/*"))
        stop.set()
        await running
        assert streams == ["mqtt_messages/mqtt", "snmp_polls/snmp", "snmp_varbinds/snmp"]

    asyncio.run(scenario())
    status = json.loads(Instance(tmp_path).status_path.read_text())
    assert set(status["landing"]) == {"mqtt_messages", "snmp_polls", "snmp_varbinds"}
    assert len(status["snmp"]) == 1


def test_a_collector_that_fails_is_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipelines.collect.runner._RESTART_MIN", 0.01)
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ZeroDivisionError("a fault")

    with caplog.at_level(logging.WARNING):
        asyncio.run(_supervise("mqtt collector factory", run, asyncio.Event()))
    assert runs == 3
    assert [r.message.split(";")[0] for r in caplog.records] == ["mqtt collector factory failed"] * 2


@pytest.mark.parametrize("broken", ["[[mqtt]]", "snmp = 3"])
def test_sighup_takes_the_configuration_anew_and_a_broken_one_changes_nothing(tmp_path: Path, broken: str) -> None:
    def names() -> list[str]:
        return sorted(name for name, status in status_of(tmp_path).get("mqtt", {}).items() if status["connected"])

    with mosquitto(tmp_path / "broker") as broker:
        path = write_config(tmp_path, broker.port)
        factory = path.read_text()
        other = factory.replace("factory", "other").replace("test/#", "other/#")
        with collectors(path) as process:
            wait_until(lambda: names() == ["factory"])
            path.write_text(factory + other)
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: names() == ["factory", "other"])
            assert status_of(tmp_path)["mqtt"]["factory"]["reconnects"] == 0
            path.write_text(factory + broken)
            process.send_signal(signal.SIGHUP)
            assert process.stderr
            while "collecting goes on as before" not in (line := process.stderr.readline()):
                assert line, "the process has ended"
            assert names() == ["factory", "other"]
            path.write_text(other.replace("other/#", "another/#"))
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: names() == ["other"])
            subscriptions = tmp_path / "data" / "status" / "mqtt-other.subscriptions.json"
            wait_until(lambda: "other/#" not in json.loads(subscriptions.read_text())["filters"])
            publish(broker.port, [b"no longer wanted"], topic="other/topic")
            publish(broker.port, [b"a"], topic="another/topic")
            wait_until(lambda: status_of(tmp_path)["landing"][SOURCE]["durable"] == 1)
            process.terminate()
            assert process.wait(5) == 0
    assert landed(tmp_path / "data" / "landing") == [b"a"]


def test_sighup_takes_targets_of_a_file_anew_and_polls_go_on(tmp_path: Path) -> None:
    def polls() -> dict[str, int]:
        targets = status_of(tmp_path).get("snmp", {})
        return {name: target["answered"] for name, target in targets.items()}

    with snmpd(tmp_path / "agent") as port:
        (tmp_path / "secchi.toml").write_text(
            '[snmp]\ntarget_files = ["*.csv"]\n[snmp.modules.m]\nget = ["1.3.6.1.2.1.1.3.0"]\ninterval = 0.1\n'
        )
        (tmp_path / "targets.csv").write_text(f"host,port,modules\n127.0.0.1,{port},m\n")
        first, second = f"127.0.0.1:{port}", f"localhost:{port}"
        with collectors(tmp_path / "secchi.toml") as process:
            wait_until(lambda: polls().get(first, 0) >= 3)
            before = polls()[first]
            (tmp_path / "targets.csv").write_text(f"host,port,modules\n127.0.0.1,{port},m\nlocalhost,{port},m\n")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: polls().get(second, 0) >= 3)
            assert polls()[first] > before, "it went on counting"
            process.terminate()
            assert process.wait(10) == 0
    rows = [row for s in sealed_segments(tmp_path / "data" / "landing", "snmp_polls") for row in polled(s.path)]
    assert {row["target"] for row in rows} == {first, second} and all(row["is_up"] for row in rows)
    varbinds = [row for s in sealed_segments(tmp_path / "data" / "landing", "snmp_varbinds") for row in polled(s.path)]
    assert [row["poll_id"] for row in rows if row["varbinds"] != 1] == []
    assert sorted(row["poll_id"] for row in rows) == sorted(row["poll_id"] for row in varbinds), "each one landed"


def polled(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_segment(path)[0].to_pylist()
    return rows


def test_a_source_that_cannot_land_is_one_line_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "snmp_varbinds").write_text("in the way")  # refuses also root, whom a read-only folder lets in

    async def scenario(port: int) -> None:
        document = {
            "lakehouse": {"path": str(tmp_path)},
            "mqtt": [{"name": "factory", "port": port, "topics": ["test/#"]}],
            "snmp": {
                "modules": {"system": {"get": ["1.3.6.1.2.1.1.3.0"]}},
                "targets": [{"host": "127.0.0.1", "port": free_port(), "modules": ["system"], "timeout": 0.1}],
            },
        }
        stop = asyncio.Event()
        running = asyncio.create_task(collect(parse_config(document), stop))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(publish, port, [b"a"])
        await asyncio.sleep(3)
        assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
            f"snmp collector: lakehouse.path: cannot write {landing}/snmp_varbinds: Not a directory; it is tried again"
        ]
        (landing / "snmp_varbinds").unlink()
        async with asyncio.timeout(20):
            while not (landing / "snmp_varbinds").is_dir():
                await asyncio.sleep(0.1)
        stop.set()
        await running

    with mosquitto(tmp_path / "broker") as broker, caplog.at_level(logging.ERROR):
        asyncio.run(scenario(broker.port))
    assert landed(landing) == [b"a"]


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever held (proc(5), VmHWM)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_large_messages_do_not_exceed_the_bound_of_memory(tmp_path: Path) -> None:
    """docs/mqtt.md states the bound: what may be pending, and the copies of what is being written."""
    count, size = 1000, 256 * 1024
    landing = tmp_path / "data" / "landing"

    def durable() -> int:
        return int(status_of(tmp_path)["landing"][SOURCE]["durable"])

    with mosquitto(tmp_path / "broker") as broker:
        config = write_config(tmp_path, broker.port)
        config.write_text(config.read_text() + '[landing]\ncapacity_bytes = "64 MiB"\n')
        with collectors(config) as process:
            wait_until(lambda: is_connected(tmp_path, process))
            at_rest = peak_bytes(process.pid)
            publish(broker.port, (b"%08d" % n + bytes(size - 8) for n in range(count)))
            wait_until(lambda: not status_of(tmp_path)["landing"][SOURCE]["writable"])
            assert 0 < durable() < count
            numbers: set[bytes] = set()
            deadline = time.monotonic() + 60
            while len(numbers) < count:
                assert time.monotonic() < deadline
                for segment in sealed_segments(landing, SOURCE):
                    numbers |= {bytes(p[:8]) for p in read_segment(segment.path)[0]["payload"].to_pylist()}
                    remove_segment(segment)
                time.sleep(0.05)
            used = peak_bytes(process.pid) - at_rest
            process.terminate()
            assert process.wait(10) == 0
    assert used <= 192 * 2**20, f"{used / 2**20:.0f} MiB"
