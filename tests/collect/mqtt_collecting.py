"""An MQTT collector that runs inside a test, and what it has landed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipelines.collect.group_commit import GroupCommit
from pipelines.collect.mqtt import RECORD, SOURCE, MqttCollector
from pipelines.settings.mqtt import MqttBroker
from resources.landing import LandingLimits, LandingStream, read_segment, sealed_segments


def landed(root: Path) -> list[dict[str, Any]]:
    return [row for s in sealed_segments(root, SOURCE) for row in read_segment(s.path)[0].to_pylist()]


def payloads(root: Path) -> set[bytes]:
    return {row["payload"] for row in landed(root)}


@asynccontextmanager
async def open_landing(root: Path, **limits: Any) -> AsyncIterator[GroupCommit]:
    stream = LandingStream(root, SOURCE, "mqtt", RECORD, LandingLimits(**limits))
    landing = GroupCommit(stream, 0.02, retry_interval=0.05)
    running = asyncio.create_task(landing.run())
    try:
        yield landing
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await landing.aclose()


@asynccontextmanager
async def collecting(landing: GroupCommit, port: int, **settings: Any) -> AsyncIterator[MqttCollector]:
    settings = {"reconnect_min": 0.05, "reconnect_max": 0.2, "topics": ["test/#"], **settings}
    folder = landing._stream.root
    collector = MqttCollector(MqttBroker(name="factory", port=port, **settings), landing, folder)
    stop = asyncio.Event()
    running = asyncio.create_task(collector.run(stop))
    try:
        yield collector
    finally:
        stop.set()
        async with asyncio.timeout(3):
            await running
    assert not collector.status()["connected"]


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def subscribed(collector: MqttCollector) -> None:
    await until(lambda: collector.status()["connected"])
    await asyncio.sleep(0.1)
