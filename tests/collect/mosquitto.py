"""A real Mosquitto on a free port, with persistence and without queue limits."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.services import free_port, require_binary


class Mosquitto:
    """One broker; ``stop`` and ``start`` restart it on the same port with what it has stored."""

    def __init__(
        self, folder: Path, max_inflight: int = 1000, users: dict[str, str] | None = None, options: Sequence[str] = ()
    ) -> None:
        self.binary, self.folder, self.port = require_binary("mosquitto"), folder, free_port()
        self.plain_port = free_port() if options else self.port
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {self.port} 127.0.0.1",
            *options,
            *([f"listener {self.plain_port} 127.0.0.1"] if options else []),
            "persistence true",
            f"persistence_location {folder}/",
            f"max_inflight_messages {max_inflight}",
            "max_queued_messages 0",
            f"allow_anonymous {'false' if users else 'true'}",
        ]
        if os.geteuid() == 0:
            lines.append("user root")
        if users:
            lines.append(f"password_file {self._password_file(users)}")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _password_file(self, users: dict[str, str]) -> Path:
        path = self.folder / "passwords"
        path.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        subprocess.run([require_binary("mosquitto_passwd"), "-U", path], check=True)
        return path

    def start(self) -> None:
        command = [self.binary, "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "mosquitto does not answer within 10 s"
                time.sleep(0.02)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None


@contextmanager
def mosquitto(
    folder: Path, max_inflight: int = 1000, users: dict[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Mosquitto]:
    """Runs a broker; ``users`` maps names to passwords, none allows all; ``options`` are those of its
    listener, beside which there is then a plain one on ``plain_port``.
    """
    broker = Mosquitto(folder, max_inflight, users, options)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def publish(
    port: int,
    payloads: Iterable[bytes],
    topic: str = "test/readings",
    qos: int = 1,
    in_flight: int = 20,
    *,
    retain: bool = False,
) -> None:
    """Publishes and waits until the broker has taken every message; ``in_flight`` fits its max_inflight_messages."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(in_flight)
    client.connect("127.0.0.1", port)
    client.loop_start()
    deadline = time.monotonic() + 30
    try:
        for sent in [client.publish(topic, payload, qos, retain) for payload in payloads]:
            sent.wait_for_publish(max(0.0, deadline - time.monotonic()))
            assert sent.is_published(), "the broker does not take messages within 30 s"
        client.disconnect()
    finally:
        client.loop_stop()
