"""Machine states sent to a real broker: every line of a recording once, made-up ones, at a rate, at each QoS."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.simulate.broker import broker_command
from pipelines.simulate.machine import states
from tests.services import free_port, require_binary
from tests.simulate.processes import STRICT, Subscriber, lines_until, running, stop

MACHINE = [*STRICT, "pipelines.cli", "simulate", "machine"]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    require_binary("mosquitto")
    number = free_port()
    with running(broker_command(tmp_path / "broker", number), number):
        yield number


def finish(port: int, *options: str) -> dict[str, float]:
    with running([*MACHINE, "--broker", f"127.0.0.1:{port}", *options]) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    summary: dict[str, float] = json.loads(out.splitlines()[-1])
    return summary


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_every_line_of_a_recording_arrives_once_as_it_stands(port: int, tmp_path: Path, qos: str) -> None:
    lines = [*states(3000, 1), b"{'Thing': 'A'}", b"no state"]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\r\n\n")
    with Subscriber(port, "machine/#") as subscriber:
        summary = finish(port, "--qos", qos, "--file", str(tmp_path / "events.jsonl"))
        messages = subscriber.wait_for(len(lines))
    assert Counter(messages) == {("machine/states", line): 1 for line in lines}
    assert (summary["sent"], summary["unacknowledged"]) == (len(lines), 0)


def test_made_up_states_at_a_rate_end_at_a_signal(port: int) -> None:
    options = ["--broker", f"127.0.0.1:{port}", "--rate", "200", "--topic", "m/s"]
    with Subscriber(port, "m/#") as subscriber, running([*MACHINE, *options]) as process:
        lines_until(process, "phase", "sending")
        code, lines, err = stop(process)
        assert (code, err) == (0, "")
        messages = subscriber.wait_for(lines[-1]["sent"])
    assert lines[-1]["phase"] == "done" and lines[-1]["unacknowledged"] == 0
    assert len(messages) == lines[-1]["sent"] <= 200 * (lines[-1]["seconds"] + 2)
    assert [payload for _, payload in messages] == list(states(len(messages), 0))


def test_made_up_states_are_like_the_recording() -> None:
    made = [json.loads(state) for state in states(5000, 0)]
    values = [
        (state["Thing"], name, state["Timestamp"])
        for state in made
        for name in state
        if name not in ("Thing", "Timestamp", "id")
    ]
    assert len(set(values)) == len(values) and 15_000 < len(values) < 25_000
    assert len({frozenset(state) for state in made}) >= 20
    assert 400 < sum(b["Timestamp"] < a["Timestamp"] for a, b in pairwise(made)) < 900
    assert list(states(5000, 0)) == [*states(5000, 0)] != [*states(5000, 1)]


def test_a_broker_that_is_not_there_is_told_and_the_end_does_not_wait() -> None:
    with running([*MACHINE, "--broker", f"127.0.0.1:{free_port()}"]) as process:
        (line,) = lines_until(process, "phase", "sending")
        assert "Connection refused" in line["problem"]
        code, lines, err = stop(process)
    assert code == 1 and "messages were not acknowledged" in err
    assert lines[-1]["sent"] == 0 and "Connection refused" in lines[-1]["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "nothing.jsonl"], "--file nothing.jsonl: No such file"),
        (["--broker", "localhost:x"], "must be HOST, HOST:PORT or REGION=HOST:PORT, got 'localhost:x'"),
        (["--password-env", "NOT_SET_AT_ALL"], "environment variable NOT_SET_AT_ALL is not set"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    with running([*MACHINE, *arguments]) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert message in err and len(err.splitlines()) == 1
