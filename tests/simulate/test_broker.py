"""The demo's broker: Mosquitto's configuration, and amqtt's QoS 1 to a live subscriber."""

import shutil
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from pipelines.simulate.broker import amqtt_command, broker_command, wait_for_port
from resources.errors import SourceUnavailableError
from tests.services import free_port, require_binary
from tests.simulate.processes import Subscriber, running, stop

MESSAGES = 1000


def publish(port: int, count: int) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    published = [client.publish("factory_iot/north/101", f"reading {n}", qos=1) for n in range(count)]
    for message in published:
        message.wait_for_publish(10)
        assert message.is_published()
    client.disconnect()
    client.loop_stop()


def test_mosquitto_runs_with_persistence_on_loopback(tmp_path: Path) -> None:
    binary, port = require_binary("mosquitto"), free_port()
    command = broker_command(tmp_path / "broker state", port)
    assert command[0] == binary
    with running(command, port) as process, Subscriber(port) as subscriber:
        publish(port, 10)
        assert len(subscriber.wait_for(10)) == 10
        assert stop(process)[0] == 0
    assert (tmp_path / "broker state" / "mosquitto.db").exists()
    lines = (tmp_path / "broker state" / "mosquitto.conf").read_text().splitlines()
    assert {f"listener {port} 127.0.0.1", "max_queued_messages 0", "max_inflight_messages 1000"} <= set(lines)


def test_without_mosquitto_the_command_is_amqtt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert broker_command(tmp_path, 1883) == amqtt_command(1883)


def test_amqtt_passes_every_qos_1_message_to_a_live_subscriber_and_is_quiet() -> None:
    port = free_port()
    with running(amqtt_command(port), port) as process:
        with Subscriber(port) as subscriber:
            publish(port, MESSAGES)
            payloads = [payload for _, payload in subscriber.wait_for(MESSAGES)]
        assert sorted(payloads) == sorted(f"reading {n}".encode() for n in range(MESSAGES))
        assert stop(process) == (0, [], "")


def test_amqtt_names_the_taken_port() -> None:
    port = free_port()
    with running(amqtt_command(port), port), running(amqtt_command(port)) as second:
        assert second.wait(15) == 1
        assert second.stderr is not None
        assert second.stderr.read().startswith(f"broker: 127.0.0.1:{port}: ")


def test_waiting_for_a_silent_port_ends() -> None:
    port = free_port()
    with pytest.raises(SourceUnavailableError, match=f"127.0.0.1:{port}: no server answered within 0.1 s"):
        wait_for_port("127.0.0.1", port, 0.1)
