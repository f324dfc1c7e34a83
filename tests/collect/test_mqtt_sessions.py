import asyncio
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines.collect.subscriptions import Subscriptions
from resources.errors import SourceUnavailableError
from tests.collect.mosquitto import mosquitto, publish
from tests.collect.mqtt_collecting import collecting, landed, open_landing, payloads, subscribed, until
from tests.services import require_binary


def retained(port: int, topic: str) -> str:
    command = [require_binary("mosquitto_sub"), "-p", str(port), "-t", topic, "-C", "1", "-W", "10"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_what_is_no_longer_in_the_topics_is_unsubscribed_in_a_session_that_goes_on(
    tmp_path: Path, protocol: str
) -> None:
    def settings(*topics: str) -> dict[str, Any]:
        return {"topics": list(topics), "protocol": protocol}

    async def scenario(port: int) -> None:
        async with open_landing(tmp_path / "landing") as landing:
            async with collecting(landing, port, **settings("old/{part}", "both/+")) as first:
                await subscribed(first)
            await asyncio.to_thread(publish, port, [b"while away"], "old/a")
            async with collecting(landing, port, **settings("new/+", "both/+")) as second:
                await subscribed(second)
                await until(lambda: landing.durable == 1)
                for topic in ("old/a", "new/a", "both/a"):
                    await asyncio.to_thread(publish, port, [topic.encode()], topic)
                await until(lambda: landing.durable == 3)
                await asyncio.sleep(0.2)
            await asyncio.to_thread(publish, port, [b"old again"], "old/a")
            async with collecting(landing, port, **settings("both/+")) as third:
                await subscribed(third)
                await asyncio.sleep(0.2)

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    assert payloads(tmp_path / "landing") == {b"while away", b"new/a", b"both/a"}


def test_what_a_session_may_hold_outlives_a_crash_before_the_answer(tmp_path: Path) -> None:
    first = Subscriptions(tmp_path, "north", "session")
    first.write(["a/+"])
    first.write({*first.known, "b/+"})
    assert Subscriptions(tmp_path, "north", "session").known == ("a/+", "b/+")
    assert Subscriptions(tmp_path, "north", "another").known == ()
    assert Subscriptions(tmp_path, "south", "session").known == ()


def test_a_record_of_subscriptions_that_cannot_be_used_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mqtt-north.subscriptions.json").write_text("[]")
    broken = Subscriptions(tmp_path, "north", "session")
    assert broken.known == () and "not readable" in caplog.text
    with pytest.raises(SourceUnavailableError, match=r"mqtt-north\.subscriptions\.json: cannot write"):
        Subscriptions(tmp_path / "nowhere", "north", "session").write(["a"])


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_named_parts_of_the_topic_are_kept_beside_the_message(tmp_path: Path, protocol: str) -> None:
    async def scenario(port: int) -> None:
        topics = ["factory_iot/{region}/{site}", "plain/#"]
        async with (
            open_landing(tmp_path / "landing") as landing,
            collecting(landing, port, topics=topics, protocol=protocol) as collector,
        ):
            await subscribed(collector)
            await asyncio.to_thread(publish, port, [b"1"], "factory_iot/north/101")
            await asyncio.to_thread(publish, port, [b"2"], "plain/a/b")
            await until(lambda: landing.durable == 2)

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    parts = {row["payload"]: row["topic_parts"] for row in landed(tmp_path / "landing")}
    assert json.loads(parts[b"1"]) == {"region": "north", "site": "101"}
    assert parts[b"2"] is None


def test_properties_of_a_message_are_kept_beside_it(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        command = [require_binary("mosquitto_pub"), "-p", str(port), "-V", "5", "-t", "test/a", "-q", "1"]
        user = ["-D", "publish", "user-property", "unit", "bar", "-D", "publish", "user-property", "größe", "1"]
        other = ["-D", "publish", "content-type", "text/plain", "-D", "publish", "correlation-data", "ab"]
        async with (
            open_landing(tmp_path / "landing") as landing,
            collecting(landing, port, protocol="5") as collector,
        ):
            await subscribed(collector)
            for number, more in enumerate(([], user, [*user, *other, "-D", "publish", "user-property", "unit", "Pa"])):
                await asyncio.to_thread(subprocess.run, [*command, "-m", str(number), *more], check=True)
            await until(lambda: landing.durable == 3)

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    found = {row["payload"]: row["properties"] for row in landed(tmp_path / "landing")}
    assert found[b"0"] is None
    assert json.loads(found[b"1"]) == {"user": {"unit": "bar", "größe": "1"}}
    user = {"unit": ["bar", "Pa"], "größe": "1"}
    assert json.loads(found[b"2"]) == {"content_type": "text/plain", "correlation_data": "6162", "user": user}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_two_collectors_share_a_subscription(tmp_path: Path, protocol: str) -> None:
    sent = [b"%04d" % n for n in range(1000)]

    async def scenario(port: int) -> None:
        def settings(client: str) -> dict[str, Any]:
            return {"topics": ["$share/group/test/{leaf}"], "client_id": client, "protocol": protocol}

        async with (
            open_landing(tmp_path / "a") as a,
            open_landing(tmp_path / "b") as b,
            collecting(a, port, **settings("a")) as first,
            collecting(b, port, **settings("b")) as second,
        ):
            await subscribed(first)
            await subscribed(second)
            await asyncio.to_thread(publish, port, sent, "test/x")
            await until(lambda: a.durable + b.durable == len(sent))
            assert min(a.durable, b.durable) > 0

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    rows = landed(tmp_path / "a") + landed(tmp_path / "b")
    assert sorted(row["payload"] for row in rows) == sent
    assert {row["topic_parts"] for row in rows} == {'{"leaf": "x"}'}


def test_a_retained_message_is_marked(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        command = [require_binary("mosquitto_pub"), "-p", str(port), "-t", "test/a", "-r", "-q", "1", "-m", "kept"]
        await asyncio.to_thread(subprocess.run, command, check=True)
        async with open_landing(tmp_path / "landing") as landing, collecting(landing, port) as collector:
            await subscribed(collector)
            await asyncio.to_thread(publish, port, [b"live"], "test/a")
            await until(lambda: landing.durable == 2)

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))
    assert {row["payload"]: row["retain"] for row in landed(tmp_path / "landing")} == {b"kept": True, b"live": False}


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_the_broker_keeps_the_state_of_the_collector(tmp_path: Path, protocol: str) -> None:
    topic = "secchi/state/factory"

    def state(port: int) -> tuple[str, str]:
        document = json.loads(retained(port, topic))
        return document["client_id"], document["state"]

    async def scenario(port: int) -> None:
        async with open_landing(tmp_path / "landing") as landing:
            settings = {"reconnect_min": 2, "reconnect_max": 2, "protocol": protocol}
            async with collecting(landing, port, state_topic=topic, **settings) as collector:
                await subscribed(collector)
                assert await asyncio.to_thread(state, port) == ("secchi-factory", "online")
                assert collector._connection
                collector._connection._client.abort()  # without DISCONNECT: the broker publishes the last will
                await asyncio.sleep(0.3)
                assert await asyncio.to_thread(state, port) == ("secchi-factory", "offline")
                await until(lambda: collector.status()["reconnects"] == 1)
                await until(lambda: collector.status()["connected"])
                await asyncio.sleep(0.2)
                assert await asyncio.to_thread(state, port) == ("secchi-factory", "online")
            assert await asyncio.to_thread(state, port) == ("secchi-factory", "offline")

    with mosquitto(tmp_path / "broker") as broker:
        asyncio.run(scenario(broker.port))


def test_a_session_that_expired_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(port: int) -> None:
        settings = {"protocol": "5", "session_expiry": "1s", "reconnect_min": 3, "reconnect_max": 3}
        async with open_landing(tmp_path / "landing") as landing, collecting(landing, port, **settings) as collector:
            await subscribed(collector)
            assert collector._connection
            collector._connection._client.abort()
            await until(lambda: collector.status()["reconnects"] == 1)

    with mosquitto(tmp_path / "broker") as broker, caplog.at_level(logging.WARNING):
        asyncio.run(scenario(broker.port))
    assert "has lost our session" in caplog.text
