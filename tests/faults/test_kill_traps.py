"""kill -9 of the trap collector: every INFORM that was answered is in silver, each once."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assets.silver.trap_events import trap_events
from pipelines.config import Config, LakehouseConfig
from pipelines.context import open_context
from pipelines.micro_batch import MicroBatches
from resources.snmp_ber import read_integer, read_tagged
from resources.snmp_message import RESPONSE
from resources.snmp_notification import INFORM, read_envelope
from tests.resources.snmpd import free_udp_port
from tests.resources.test_snmp_notification import LINK_DOWN, pdu, v2c

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def collecting(config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "pipelines.cli", "--config", str(config), "collect"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore"}) as process:
        try:
            yield process
        finally:
            process.kill()


def answered(sender: socket.socket) -> set[int]:
    """The request-ids of the answers that have come."""
    found: set[int] = set()
    while True:
        try:
            datagram = sender.recv(65_535)
        except OSError:  # none there, or the port is closed
            return found
        envelope = read_envelope(datagram)
        at, end = read_tagged(datagram, envelope.at, envelope.end, RESPONSE)
        found.add(read_integer(datagram, at, end)[0])


def send(port: int, numbers: Iterator[int], known: set[int], until: int) -> None:
    """Sends INFORMs, and again those that were not answered, until so many of ``known`` were."""
    deadline = time.monotonic() + 60
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.connect(("127.0.0.1", port))
        sender.setblocking(False)
        while len(known) < until:
            assert time.monotonic() < deadline, f"{len(known)} of {until} were answered"
            for _ in range(10):
                try:
                    sender.send(v2c(pdu(INFORM, *LINK_DOWN, request_id=next(numbers))))
                except OSError:
                    break  # nobody listens yet
            time.sleep(0.005)
            known |= answered(sender)


def test_what_was_answered_is_kept(tmp_path: Path) -> None:
    port, known, rng = free_udp_port(), set[int](), random.Random(1)
    config = tmp_path / "secchi.toml"
    config.write_text(f'[lakehouse]\npath = "lake"\n[snmp_traps]\nport = {port}\nrate = 0\n')
    numbers = iter(range(1, 2**31))
    for until in (200, 500, 900):
        with collecting(config) as process:
            send(port, numbers, known, until + rng.randrange(100))
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    context = open_context(Config(lakehouse=LakehouseConfig(path=tmp_path / "lake")))
    assert not [result.error for result in MicroBatches(context).drain() if result.error]
    rows = context.lakehouse.read(trap_events.stored)
    assert known <= set(rows["request_id"])
    assert rows["request_id"].is_unique().all()
