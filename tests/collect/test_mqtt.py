import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.settings.fields import Secret
from pipelines.settings.mqtt import MqttBroker
from resources.landing import LandingLimits, LandingStream
from resources.mqtt import Broker
from tests.collect.mosquitto import mosquitto, publish
from tests.collect.mqtt_collecting import collecting, landed, open_landing, payloads, subscribed, until
from tests.services import free_port

FULL = {"capacity_bytes": 1, "segment_seconds": 0.05}


def numbered(count: int) -> list[bytes]:
    return [b"%05d" % n for n in range(count)]


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_is_kept_as_it_came(tmp_path: Path, qos: int, protocol: str) -> None:
    payload = bytes(range(256))

    async def scenario(port: int) -> None:
        async with (
            open_landing(tmp_path / "landing") as landing,
            collecting(landing, port, qos=qos, protocol=protocol) as collector,
        ):
            await subscribed(collector)
            await asyncio.to_thread(publish, port, [payload, b""], "test/größe", qos)
            await until(lambda: landing.durable == 2)
            assert collector.status() == {
                "connected": True,
                "received": 2,
                "durable": 2,
                "reconnects": 0,
                "last_error": None,
            }

    before = time.time()
    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    first, second = landed(tmp_path / "landing")
    assert before <= first.pop("received_at").timestamp() <= time.time()
    expected = {"broker": "factory", "topic": "test/größe", "qos": qos, "retain": False, "payload": payload}
    assert first == {**expected, "topic_parts": None, "properties": None}
    assert second["payload"] == b""


@pytest.mark.parametrize("window", [1, 20])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_small_window_of_the_broker_does_not_wait_for_the_interval(tmp_path: Path, qos: int, window: int) -> None:
    async def scenario(port: int) -> None:
        stream = LandingStream(tmp_path / "landing", SOURCE, "mqtt", RECORD, LandingLimits())
        landing = GroupCommit(stream, interval=3600)
        running = asyncio.create_task(landing.run())
        async with collecting(landing, port, qos=qos) as collector:
            await subscribed(collector)
            await asyncio.to_thread(publish, port, numbered(200), "test/a", qos, window)
            # Only full windows are committed before the interval is over.
            await until(lambda: landing.received == 200 and landing.durable >= 200 - window)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await landing.aclose()

    with mosquitto(tmp_path / "broker", max_inflight=window) as broker:
        asyncio.run(scenario(broker.port))
    assert payloads(tmp_path / "landing") == set(numbered(200))


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_landing_did_not_take_stays_with_the_broker(tmp_path: Path, qos: int, protocol: str) -> None:
    async def full(port: int) -> None:
        async with (
            open_landing(tmp_path / "full", **FULL) as landing,
            collecting(landing, port, qos=qos, protocol=protocol) as collector,
        ):
            await subscribed(collector)
            await asyncio.to_thread(publish, port, [b"first"], "test/a", qos)
            await until(lambda: landing.durable == 1)
            await asyncio.to_thread(publish, port, numbered(300), "test/a", qos)
            await until(lambda: not landing.is_writable)
            await asyncio.sleep(0.1)
            assert collector.status()["durable"] == 1

    async def roomy(port: int) -> None:
        async with open_landing(tmp_path / "roomy") as landing, collecting(landing, port, qos=qos, protocol=protocol):
            await until(lambda: landing.durable >= 300)

    with mosquitto(tmp_path / "broker", max_inflight=20) as broker:
        asyncio.run(full(broker.port))
        asyncio.run(roomy(broker.port))
    assert payloads(tmp_path / "full") == {b"first"}
    assert payloads(tmp_path / "roomy") == set(numbered(300))


def test_everything_arrives_when_landing_has_room_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "landing"

    async def scenario(port: int) -> None:
        async with open_landing(root, **FULL) as landing, collecting(landing, port, keepalive=1) as collector:
            await subscribed(collector)
            await asyncio.to_thread(publish, port, [b"first"])
            await until(lambda: landing.durable == 1)
            await asyncio.to_thread(publish, port, numbered(300))
            # The broker ends a connection that is silent for one and a half times its keep-alive.
            await asyncio.sleep(3)
            assert not landing.is_writable
            assert (collector.status()["connected"], collector.status()["durable"]) == (True, 1)
            landing._stream.limits = LandingLimits()
            await until(lambda: landing.durable == 301)
            assert collector.status()["reconnects"] == 0

    with mosquitto(tmp_path / "broker", max_inflight=20) as broker, caplog.at_level(logging.INFO):
        asyncio.run(scenario(broker.port))
    assert payloads(root) == {b"first", *numbered(300)}
    assert [r.levelname for r in caplog.records] == ["INFO", "ERROR", "WARNING"]


def test_a_restarted_broker_is_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto(tmp_path / "broker") as broker:

        async def scenario() -> None:
            async with open_landing(tmp_path / "landing") as landing, collecting(landing, broker.port) as collector:
                await subscribed(collector)
                await asyncio.to_thread(publish, broker.port, [b"before"])
                await until(lambda: landing.durable == 1)
                await asyncio.sleep(0.2)  # its PUBACK is out, so it is not delivered again
                await asyncio.to_thread(broker.stop)
                await until(lambda: not collector.status()["connected"])
                await asyncio.sleep(0.5)
                await asyncio.to_thread(broker.start)
                # Not awaiting the collector: its session, and with it the subscription, outlives the restart.
                await asyncio.to_thread(publish, broker.port, [b"after"])
                await until(lambda: landing.durable == 2)
                await until(lambda: collector.status()["reconnects"] == 1)

        with caplog.at_level(logging.INFO):
            asyncio.run(scenario())
    assert payloads(tmp_path / "landing") == {b"before", b"after"}
    lost, refused = (r.message for r in caplog.records if r.levelname == "WARNING")
    assert f"mqtt broker factory (127.0.0.1:{broker.port}): connection lost" in lost
    assert "Connection refused" in refused


def test_a_wrong_password_is_one_line_and_stops_no_other_broker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_PASSWORD", "sesame")
    monkeypatch.setenv("WRONG_PASSWORD", "opensesame")

    async def scenario(port: int) -> None:
        def login(variable: str) -> dict[str, Any]:
            return {"username": "ann", "password": Secret(env=variable), "client_id": variable}

        async with (
            open_landing(tmp_path / "landing") as landing,
            collecting(landing, port, **login("WRONG_PASSWORD")) as refused,
            collecting(landing, free_port()) as absent,
            collecting(landing, port, **login("MISSING_PASSWORD")) as unset,
            collecting(landing, port, **login("BROKER_PASSWORD")) as accepted,
        ):
            await subscribed(accepted)
            await asyncio.sleep(1)
            assert "refused: Not authorized" in refused.status()["last_error"]
            assert "Connection refused" in absent.status()["last_error"]
            assert "MISSING_PASSWORD is not set" in unset.status()["last_error"]
            assert [c.status()["connected"] for c in (refused, absent, unset, accepted)] == [False, False, False, True]

    with mosquitto(tmp_path / "broker", users={"ann": "sesame"}) as broker, caplog.at_level(logging.WARNING):
        asyncio.run(scenario(broker.port))
    assert len(caplog.records) == 3, "one line a broker, however often it was tried"
    assert "sesame" not in caplog.text


def test_the_password_is_not_in_the_repr() -> None:
    assert "sesame" not in repr(Broker("a", "b", 1, "c", ("d",), 1, password="sesame"))


@pytest.mark.parametrize("topic", ["a#", "a/#/b", "a+", "", "a\0b"])
def test_a_topic_filter_that_is_not_valid_is_refused_before_anything_connects(topic: str) -> None:
    with pytest.raises(ValueError, match="topics"):
        MqttBroker(name="factory", topics=[topic])


class OneIdentifierBroker:
    """Gives every message the packet identifier 1, drops the first connection, and notes what is acknowledged where.

    ``granted`` is what it answers to the subscription (SUBACK).
    """

    def __init__(self, granted: int = 1) -> None:
        self.granted = granted
        self.acknowledged: list[bytes] = []
        self.drop = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.acknowledged)
        self.acknowledged.append(b"")
        await reader.read(1000)
        writer.write(b"\x20\x02\x00\x00")
        await reader.read(1000)
        writer.write(b"\x90\x03\x00\x01%c" % self.granted + b"\x32\x08\x00\x03t/a\x00\x01" + b"%d" % number)
        if number == 0:
            await self.drop.wait()
        else:
            while data := await reader.read(1000):
                self.acknowledged[number] += data
        writer.close()


def test_an_acknowledgement_never_goes_out_on_a_later_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        broker = OneIdentifierBroker()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        stream = LandingStream(tmp_path, SOURCE, "mqtt", RECORD, LandingLimits())
        landing = GroupCommit(stream)
        async with collecting(landing, port) as collector:
            await until(lambda: landing.received == 1)
            broker.drop.set()
            await until(lambda: landing.received == 2)
            assert collector.status()["durable"] == 0
            await landing.flush()
            assert collector.status()["durable"] == 2
            await until(lambda: broker.acknowledged[1])
        await asyncio.sleep(0.1)
        assert broker.acknowledged == [b"", b"\x40\x02\x00\x01" + b"\xe0\x00"], "one PUBACK, and DISCONNECT"
        server.close()
        await landing.aclose()

    asyncio.run(scenario())
    assert [row["payload"] for row in landed(tmp_path)] == [b"0", b"1"]


@pytest.mark.parametrize(
    ("granted", "answer"), [(0x80, "refused: Unspecified error"), (0, "only QoS 0 was granted, 1 is asked for")]
)
def test_a_subscription_that_is_not_granted_is_named(tmp_path: Path, granted: int, answer: str) -> None:
    async def scenario() -> None:
        broker = OneIdentifierBroker(granted)
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        async with open_landing(tmp_path) as landing:
            async with collecting(landing, server.sockets[0].getsockname()[1], topics=["t/#"]) as collector:
                await until(lambda: landing.durable == 1)
                assert collector.status()["last_error"] == f"mqtt broker factory: subscription to 't/#': {answer}"
            broker.drop.set()
        server.close()

    asyncio.run(scenario())


def test_a_host_that_is_no_name_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_landing(tmp_path) as landing, collecting(landing, 1883, host="a..b") as collector:
            await until(lambda: collector.status()["last_error"])
            assert "host 'a..b' is no host name" in collector.status()["last_error"]

    asyncio.run(scenario())
