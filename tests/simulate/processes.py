"""Brokers, senders and a subscriber for the tests of the senders."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from pipelines.simulate.broker import wait_for_port

STRICT = [sys.executable, "-W", "error", "-m"]


@contextlib.contextmanager
def running(command: list[str], port: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A child process; it is asked to stop at the end, and killed if it does not."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if port is not None:
                wait_for_port("127.0.0.1", port, 15.0)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def stop(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    """Asks a sender to stop; returns its exit code, the JSON lines it still wrote, and its standard error."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def lines_until(process: subprocess.Popen[str], key: str, value: str) -> list[dict[str, Any]]:
    """Reads JSON lines up to the first in which ``key`` is ``value``."""
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    for text in process.stdout:
        lines.append(json.loads(text))
        if lines[-1].get(key) == value:
            return lines
    raise AssertionError(f"no line with {key}={value}: {lines}, {process.stderr.read() if process.stderr else ''}")


class Subscriber:
    """A QoS 1 subscriber with a persistent session that keeps all it gets."""

    def __init__(self, port: int, topic: str = "factory_iot/#", login: tuple[str, str] | None = None) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._arrived = threading.Condition()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="reader", clean_session=False)
        if login:
            self._client.username_pw_set(*login)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> "Subscriber":
        self._client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, payloads: int, timeout: float = 15.0) -> list[tuple[str, bytes]]:
        """The messages once there are so many distinct payloads."""
        with self._arrived:
            self._arrived.wait_for(lambda: len({payload for _, payload in self.messages}) >= payloads, timeout)
            return list(self.messages)

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        with self._arrived:
            self.messages.append((message.topic, bytes(message.payload)))
            self._arrived.notify_all()
