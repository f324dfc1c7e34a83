"""Machine states over MQTT: a recording replayed, or states made up that look like one."""

import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.simulate.publisher import print_line
from pipelines.simulate.sender import Pace, Sender, Target
from resources.errors import ConfigurationError, SourceUnavailableError

TOPIC = "machine/states"
RECORDED = 1_402_232
"""How many states the full recording has."""

_REPORT_SECONDS = 1.0
_POLL_SECONDS = 0.02
_START_MS = 1_554_096_380_468
_THINGS = ("R0815", "R0815", "R0815", "R0815", "R0815", "R0815", "H31415", "R27182")
# name, mean, deviation, and how often a state has it
_QUANTITIES = (
    ("vaTorque", 3.0, 12.0, 0.94),
    ("vaCurr", 1.2, 6.0, 0.76),
    ("vaLoad", 8.0, 14.0, 0.74),
    ("actSpeed", 1800.0, 900.0, 0.54),
    ("vaPower", 600.0, 4000.0, 0.46),
    ("cmdSpeed", 1800.0, 900.0, 0.40),
    ("turnState", 3.0, 1.0, 0.10),
    ("aaAcc", 20.0, 4.0, 0.03),
)
_LONG_GAP_EVERY, _LONG_GAP_MS = 100_000, 5 * 86_400_000


@dataclass(frozen=True)
class Options:
    """What to send and where; a ``rate`` of None is as fast as the broker takes it."""

    broker: Target = field(default_factory=lambda: Target(qos=2))
    topic: str = TOPIC
    file: Path | None = None
    messages: int | None = None
    rate: float | None = None
    seed: int = 0


def states(count: int, seed: int) -> Iterator[bytes]:
    """Made-up states: sparse, now and then a step back in time, no two with the same thing, quantity and time."""
    chance = random.Random(seed)
    swapped = False
    for i in range(count):
        if i % 2 == 0:
            swapped = chance.random() < 0.26
        at = _START_MS + 1000 * ((i ^ 1) if swapped else i) + i // _LONG_GAP_EVERY * _LONG_GAP_MS
        own = [q for q in _QUANTITIES if chance.random() < q[3]] or [_QUANTITIES[0]]
        values = ", ".join(f'"{name}_C11": {chance.gauss(mean, deviation):.6g}' for name, mean, deviation, _ in own)
        thing = _THINGS[chance.randrange(len(_THINGS))]
        yield f'{{"Thing": "{thing}", "Timestamp": {at}, {values}, "id": "{i:032x}"}}'.encode()


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a recording, as they stand there: also those that no reader can use."""
    try:
        with path.open("rb") as file:
            yield from (line for line in (line.rstrip(b"\r\n") for line in file) if line)
    except OSError as error:
        raise ConfigurationError(f"--file {path}: {error.strerror}") from error


def run(options: Options, stopped: threading.Event) -> None:
    """Sends and prints a line a second and a summary, as JSON.

    Raises:
        ConfigurationError: the file cannot be read.
        SourceUnavailableError: the broker did not acknowledge what was sent.
    """
    if options.file is None:
        payloads: Iterable[bytes] = states(options.messages or RECORDED, options.seed)
    else:
        payloads = (line for line, _ in zip(_lines(options.file), _counter(options.messages), strict=False))
    sending = _Sending(options, stopped)
    started = time.monotonic()
    try:
        for payload in payloads:
            if stopped.is_set():
                break
            sending.send(payload)
    finally:
        sending.sender.close()
    seconds = time.monotonic() - started
    acknowledged, left = sending.acknowledged, sending.sender.unacknowledged
    summary: dict[str, Any] = {"sent": acknowledged, "phase": "done", "unacknowledged": left}
    summary |= {"seconds": round(seconds, 3), "per_second": round(acknowledged / seconds)}
    print_line({**summary, **sending.problem})
    if left:
        told = sending.problem.get("problem", "the broker did not answer in time")
        raise SourceUnavailableError(f"{left} messages were not acknowledged: {told}")


def _counter(most: int | None) -> Iterable[int]:
    return range(most) if most is not None else iter(int, 1)


class _Sending:
    """One run: paces the messages and tells how far they have come."""

    def __init__(self, options: Options, stopped: threading.Event) -> None:
        self.acknowledged = 0
        self.sender = Sender[None](options.broker, stopped, self._count, self._report)
        self._options = options
        self._stopped = stopped
        self._pace = None if options.rate is None else Pace(options.rate)
        self._report_at = time.monotonic()

    @property
    def problem(self) -> dict[str, str]:
        """What is wrong with the broker, as a part of a line."""
        return {"problem": f"{self.sender.target}: {self.sender.problem}"} if self.sender.problem else {}

    def send(self, payload: bytes) -> None:
        """Sends when it is time."""
        self._wait()
        self.sender.publish(self._options.topic, payload, None)
        self._report()

    def _report(self) -> None:
        if time.monotonic() >= self._report_at + _REPORT_SECONDS:
            self._report_at = time.monotonic()
            print_line({"sent": self.acknowledged, "phase": "sending", **self.problem})

    def _wait(self) -> None:
        while self._pace and (wait := self._pace.wait(time.monotonic())) and not self._stopped.is_set():
            time.sleep(min(wait, _POLL_SECONDS))
            self.sender.poll(0.0)

    def _count(self, token: None) -> None:
        self.acknowledged += 1
