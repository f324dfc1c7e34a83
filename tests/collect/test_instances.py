"""Several processes that collect for one lakehouse, from a real broker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.collect.instances import Instance, instances, part_of
from pipelines.collect.mqtt import SOURCE
from pipelines.config import parse_config
from resources.errors import ConfigurationError
from resources.landing import read_segment, recover_streams, sealed_segments
from tests.collect.mosquitto import mosquitto, publish
from tests.services import free_port

CONFIG = """
[[mqtt]]
name = "hall"
port = {port}
topics = ["$share/plant/test/{{line}}"]
reconnect_min = "50ms"
state_topic = "state/hall"

[[mqtt]]
name = "yard"
port = {port}
topics = ["yard"]
reconnect_min = "50ms"
"""


def secchi(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipelines.cli", "--config", str(config), *arguments]


@contextmanager
def collecting(config: Path, name: str = "") -> Iterator["subprocess.Popen[str]"]:
    """``secchi collect``, connected; it is killed at the end if it still runs."""
    command = secchi(config, "collect", *(["--instance", name] if name else []))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            wait_until(lambda: is_connected(Instance(config.parent / "data", name), process.pid))
            yield process
        finally:
            process.kill()


def is_connected(instance: Instance, pid: int) -> bool:
    if not instance.status_path.exists():
        return False
    status = json.loads(instance.status_path.read_text())
    return status["pid"] == pid and all(broker["connected"] for broker in status["mqtt"].values())


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)


def landed(folder: Path) -> list[bytes]:
    segments = sealed_segments(folder / "data" / "landing", SOURCE)
    return [payload for s in segments for payload in read_segment(s.path)[0]["payload"].to_pylist()]


def test_two_processes_share_what_comes_and_one_that_is_killed_takes_its_part_up_again(tmp_path: Path) -> None:
    payloads, more, config = [b"%04d" % n for n in range(1000)], [b"%04d" % n for n in range(1000, 1400)], tmp_path
    with mosquitto(tmp_path / "broker") as broker:
        config = tmp_path / "secchi.toml"
        config.write_text(CONFIG.format(port=broker.port))
        with collecting(config) as first, collecting(config, "two") as second:
            publish(broker.port, payloads, topic="test/press")
            publish(broker.port, [b"yard"], topic="yard")
            wait_until(lambda: len(landed(tmp_path)) == 1001)
            assert Counter(landed(tmp_path)) == Counter([*payloads, b"yard"]), "the yard's is not shared, and came once"
            parts = [durable(Instance(tmp_path / "data", name)) for name in ("", "two")]
            assert min(parts) > 0, "each has a part"

            second.kill()
            second.wait()
            publish(broker.port, more, topic="test/press")
            with collecting(config, "two") as third:
                wait_until(lambda: set(landed(tmp_path)) >= {*payloads, *more})
                third.terminate()
                assert third.wait(10) == 0
            first.terminate()
            assert first.wait(10) == 0
    recover_streams(tmp_path / "data" / "landing", SOURCE, dict)
    assert set(landed(tmp_path)) == {*payloads, *more, b"yard"}


def durable(instance: Instance) -> int:
    return int(json.loads(instance.status_path.read_text())["mqtt"]["hall"]["durable"])


def test_reload_and_status_reach_every_process(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "broker") as broker:
        config = tmp_path / "secchi.toml"
        config.write_text(CONFIG.format(port=broker.port))
        with collecting(config) as first, collecting(config, "two") as second:
            config.write_text(CONFIG.format(port=broker.port).replace("hall", "nave"))
            ran = subprocess.run(secchi(config, "reload"), capture_output=True, text=True, check=True)
            assert [str(process.pid) in ran.stdout for process in (first, second)] == [True, True]
            for name, brokers in {"": {"nave", "yard"}, "two": {"nave"}}.items():
                path = Instance(tmp_path / "data", name).status_path
                wait_until(lambda path=path, brokers=brokers: set(json.loads(path.read_text())["mqtt"]) == brokers)  # type: ignore[misc]
            shown = subprocess.run(secchi(config, "status"), capture_output=True, text=True, check=True).stdout
            assert f"Collectors: running (pid {first.pid}" in shown
            assert f"Collectors two: running (pid {second.pid}" in shown
            again = subprocess.run(secchi(config, "collect", "--instance", "two"), capture_output=True, text=True)
            assert again.returncode == 2
            assert "another process collects for" in again.stderr and "as instance two" in again.stderr
            for process in (first, second):
                os.kill(process.pid, signal.SIGTERM)
                assert process.wait(10) == 0


def test_instance_is_a_client_of_its_own_for_what_is_shared_only() -> None:
    document = {
        "mqtt": [
            {"name": "hall", "topics": ["$share/plant/test/#", "alone"], "state_topic": "state/hall"},
            {"name": "yard", "topics": ["yard"]},
        ],
        "snmp": {"targets": [{"host": "127.0.0.1", "port": free_port(), "modules": ["system"]}]},
        "snmp_traps": {"port": free_port()},
    }
    part = part_of(parse_config(document), "two")
    (broker,) = part.mqtt
    assert (broker.topics, broker.client, broker.state_topic) == (
        ["$share/plant/test/#"],
        "secchi-hall-two",
        "state/hall/two",
    )
    assert not part.snmp.targets and part.snmp_traps is None
    assert part_of(parse_config(document), "") == parse_config(document)


def test_instance_without_anything_shared_is_refused() -> None:
    config = parse_config({"mqtt": [{"name": "yard", "topics": ["yard"]}]})
    with pytest.raises(ConfigurationError, match=r"instance two takes its part of the shared subscriptions only"):
        part_of(config, "two")


def test_those_that_have_collected_are_known(tmp_path: Path) -> None:
    with Instance(tmp_path, "two").held(), Instance(tmp_path).held():
        pids = [instance.lock.pid() for instance in instances(tmp_path)]
    assert [instance.name for instance in instances(tmp_path)] == ["", "two"]
    assert pids == [os.getpid()] * 2
    assert [instance.lock.pid() for instance in instances(tmp_path)] == [None, None]
