"""The factory's process against a real broker: what is recorded is what arrives, nothing twice, and a clean stop."""

import contextlib
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipelines.simulate.broker import User, amqtt_command, broker_command
from tests.services import free_port, require_binary
from tests.simulate.processes import STRICT, Subscriber, lines_until, running, stop

FACTORY = [*STRICT, "pipelines.cli", "simulate", "factory"]
SITES = ["--sites", "101,102,103,104,105,106"]
SHORT_HISTORY = [*SITES, "--history", "2m", "--history-interval", "10s"]

LEAST = 800
"""Readings of the short history: 1200 less those of devices that have dropped out at this time of the day."""


def to(port: int) -> list[str]:
    return ["--broker", f"127.0.0.1:{port}"]


class Sent(NamedTuple):
    lines: list[dict[str, str]]

    @property
    def digests(self) -> Counter[str]:
        return Counter(line["payload_sha256"] for line in self.lines)

    def of(self, kind: str, is_live: str) -> list[dict[str, str]]:
        return [line for line in self.lines if (line["kind"], line["is_live"]) == (kind, is_live)]


def read(path: Path) -> Sent:
    with path.open(newline="") as file:
        return Sent(list(csv.DictReader(file)))


def digests(messages: list[tuple[str, bytes]]) -> Counter[str]:
    return Counter(hashlib.sha256(payload).hexdigest() for _, payload in messages)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    require_binary("mosquitto")
    number = free_port()
    with running(broker_command(tmp_path / "broker", number), number):
        yield number


def finish(command: list[str], code: int = 0) -> tuple[list[dict[str, Any]], str]:
    with running(command) as process:
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return [json.loads(line) for line in out.splitlines()], err


def test_everything_recorded_arrives_once_and_the_counts_agree(port: int, tmp_path: Path) -> None:
    sent_file, labels_file = tmp_path / "sent.csv", tmp_path / "labels.csv"
    options = [*to(port), "--sent", str(sent_file), "--labels", str(labels_file), "--seed", "5"]
    live = ["--rate", "400", "--duration", "2.5", "--malformed-every", "40"]
    with Subscriber(port) as subscriber:
        lines, err = finish([*FACTORY, *options, *SHORT_HISTORY, *live])
        sent = read(sent_file)
        messages = subscriber.wait_for(len(sent.lines))
    assert err == ""
    assert digests(messages) == sent.digests
    history, live_lines, malformed = (
        sent.of("reading", "false"),
        sent.of("reading", "true"),
        sent.of("malformed", "true"),
    )
    assert len(sent.lines) == len(history) + len(live_lines) + len(malformed)
    assert LEAST < len(history) <= 1200
    assert len(malformed) == (len(live_lines) + len(malformed)) // 40 >= 5
    summary = lines[-1]
    assert summary.pop("seconds") > 2.5
    expected = {"history": len(history), "live": len(live_lines), "malformed": len(malformed), "unacknowledged": 0}
    assert summary == {"sent": len(sent.lines), "phase": "done", **expected}
    assert all(set(line) == {"sent", "phase"} and line["phase"] in {"history", "live"} for line in lines[:-1])
    assert labels_file.read_text().startswith("site_id,device_id,started_at,ended_at,fault\n")
    check_lines(sent)
    check_shapes(messages)


def check_lines(sent: Sent) -> None:
    """Keys are unique; malformed lines have none; live readings are late by two seconds at most, and out of order."""
    keys = ["site_id", "device_id", "sensor_id", "unit", "ts_ms"]
    readings = [line for line in sent.lines if line["kind"] == "reading"]
    assert len({tuple(line[name] for name in keys) for line in readings}) == len(readings)
    assert all(line[name] == "" for line in sent.lines if line["kind"] == "malformed" for name in keys)
    live = sorted(sent.of("reading", "true"), key=lambda line: int(line["sent_at_us"]))
    late = [int(line["sent_at_us"]) / 1000 - int(line["ts_ms"]) for line in live]
    assert min(late) > -100 and max(late) < 3000
    times = [int(line["ts_ms"]) for line in live]
    assert times != sorted(times)


def check_shapes(messages: list[tuple[str, bytes]]) -> None:
    regions = {"101": "north", "104": "north", "102": "south", "105": "south", "103": "east", "106": "east"}
    assert {topic for topic, _ in messages} == {f"factory_iot/{region}/{site}" for site, region in regions.items()}
    text = [payload for _, payload in messages]
    assert any(b"ts_human" not in payload for payload in text)
    assert any(b"ts_human" in payload and b"deviceType" not in payload for payload in text)
    assert any(b"deviceType" in payload for payload in text)


def test_sigterm_ends_the_live_phase_with_everything_acknowledged(port: int, tmp_path: Path) -> None:
    sent_file = tmp_path / "sent.csv"
    with running([*FACTORY, *to(port), "--sent", str(sent_file), *SHORT_HISTORY]) as process:
        lines_until(process, "phase", "live")
        code, lines, err = stop(process)
    assert (code, err) == (0, "")
    assert lines[-1]["phase"] == "done"
    assert lines[-1]["unacknowledged"] == 0
    assert lines[-1]["sent"] == len(read(sent_file).lines) > LEAST


def test_a_second_run_appends_to_the_file(port: int, tmp_path: Path) -> None:
    sent_file = tmp_path / "sent.csv"
    command = [*FACTORY, *to(port), "--sent", str(sent_file), "--duration", "0", *SHORT_HISTORY]
    finish(command)
    first = read(sent_file).lines
    finish([*command, "--seed", "1"])
    both = read(sent_file).lines
    assert both[: len(first)] == first and len(both) - len(first) > LEAST < len(first)


def test_a_broker_restart_loses_nothing_and_records_nothing_twice(tmp_path: Path) -> None:
    require_binary("mosquitto")
    port, sent_file = free_port(), tmp_path / "sent.csv"
    broker = broker_command(tmp_path / "broker", port)
    options = [*to(port), "--sent", str(sent_file), "--rate", "1000", *SHORT_HISTORY]
    with running(broker, port) as first, Subscriber(port) as subscriber, running([*FACTORY, *options]) as factory:
        lines_until(factory, "phase", "live")
        assert stop(first)[0] == 0
        before = len(subscriber.messages)
        with running(broker, port):
            assert len(subscriber.wait_for(before + 1000)) > before + 1000
            code, lines, _ = stop(factory)
            sent = read(sent_file)
            arrived = digests(subscriber.wait_for(len(sent.lines)))
    assert (code, lines[-1]["unacknowledged"]) == (0, 0)
    assert set(sent.digests.values()) == {1}
    assert set(arrived) == set(sent.digests)


def test_amqtt_serves_the_factory(tmp_path: Path) -> None:
    port, sent_file = free_port(), tmp_path / "sent.csv"
    options = [*to(port), "--sent", str(sent_file), "--duration", "1", *SHORT_HISTORY]
    with running(amqtt_command(port), port), Subscriber(port) as subscriber:
        finish([*FACTORY, *options])
        sent = read(sent_file)
        assert digests(subscriber.wait_for(len(sent.lines))) == sent.digests
    assert len(sent.lines) > LEAST


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--catalogue", "nothing.json"], "secchi: nothing.json: No such file"),
        (["--sent", "no/such/folder/sent.csv"], "secchi: --sent no/such/folder/sent.csv: No such file"),
        (["--history", "soon"], "must be a duration like '30s', '5m', '1h30m' or a number of seconds, got 'soon'"),
        (["--history-interval", "0"], "must be at least 1ms, got 0:00:00"),
        (["--rate", "0"], "0.0 is not in the range x>0"),
        (["--username", "north=plant"], "no --broker has the region 'north'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    with running([*FACTORY, *to(free_port()), *arguments]) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert message in err.splitlines()[-1]


def test_each_region_goes_to_its_broker(port: int, tmp_path: Path) -> None:
    other = free_port()
    command = [*FACTORY, *to(port), "--broker", f"north=127.0.0.1:{other}", "--duration", "0", *SHORT_HISTORY]
    with (
        running(broker_command(tmp_path / "north", other), other),
        Subscriber(other) as north,
        Subscriber(port) as rest,
    ):
        lines, _ = finish(command)
        topics = {topic.split("/")[1] for topic, _ in north.wait_for(1)}
        others = {topic.split("/")[1] for topic, _ in rest.wait_for(lines[-1]["sent"] - len(north.messages))}
    assert (topics, others) == ({"north"}, {"south", "east"})
    assert len(north.messages) + len(rest.messages) == lines[-1]["sent"] > LEAST


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_regional_brokers_have_logins_of_their_own(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "mosquitto":
        require_binary("mosquitto")
    command = [*FACTORY, "--duration", "0", *SHORT_HISTORY, "--sites", "101,102"]
    with contextlib.ExitStack() as stack:
        readers = {}
        for region in ("north", "south"):
            port, topics = free_port(), (f"factory_iot/{region}/#",)
            users = (User("plant", f"p {region}", writes=topics), User("reader", f"r {region}", reads=topics))
            brokers = {
                "mosquitto": broker_command,
                "amqtt": lambda folder, port, users: amqtt_command(port, folder, users),
            }
            stack.enter_context(running(brokers[kind](tmp_path / region, port, users), port))
            readers[region] = stack.enter_context(Subscriber(port, topics[0], ("reader", f"r {region}")))
            monkeypatch.setenv(f"{region.upper()}_PASSWORD", f"p {region}")
            command += [
                "--broker",
                f"{region}=127.0.0.1:{port}",
                "--password-env",
                f"{region}={region.upper()}_PASSWORD",
            ]
        finish([*command, "--username", "plant", "--sent", str(tmp_path / "sent.csv")])
        sent = read(tmp_path / "sent.csv")
        of_site = Counter(line["site_id"] for line in sent.lines)
        north, south = readers["north"].wait_for(of_site["101"]), readers["south"].wait_for(of_site["102"])
        refused, err = finish([*command, "--username", "plant", "--username", "south=reader"], code=1)
    assert digests(north + south) == sent.digests and len(sent.lines) > 200
    assert ({topic for topic, _ in north}, {topic for topic, _ in south}) == (
        {"factory_iot/north/101"},
        {"factory_iot/south/102"},
    )
    assert "readings were not acknowledged" in err
    assert len(refused[-1]["problems"]) == 1 and "the broker refuses" in refused[-1]["problems"][0]
