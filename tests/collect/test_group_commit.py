import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.collect.group_commit import GroupCommit
from resources.errors import SourceUnavailableError
from resources.landing import (
    LandingLimits,
    LandingStream,
    read_segment,
    recover_streams,
    remove_segment,
    sealed_segments,
    stream_names,
)

SCHEMA = pa.schema([("number", pa.int64()), ("payload", pa.binary())])


def make_stream(root: Path, **limits: Any) -> LandingStream:
    return LandingStream(root, "source", "collector", SCHEMA, LandingLimits(**limits))


def numbers(root: Path) -> list[int]:
    return [n for s in sealed_segments(root, "source") for n in read_segment(s.path)[0]["number"].to_pylist()]


@asynccontextmanager
async def running(landing: GroupCommit) -> AsyncIterator[None]:
    task = asyncio.create_task(landing.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await landing.aclose()


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def test_senders_are_told_in_order_and_only_of_what_is_durable(tmp_path: Path) -> None:
    async def scenario() -> None:
        stream = make_stream(tmp_path, segment_seconds=3600)
        landing = GroupCommit(stream, 0.01)
        told: list[int] = []

        def on_durable(number: int) -> None:
            stored = read_segment(stream.directory / "open.arrows")[0]["number"].to_pylist()
            assert number in stored
            told.append(number)

        async with running(landing):
            for number in range(300):
                landing.put((number, b"x"), partial(on_durable, number))
                if number % 50 == 0:
                    await asyncio.sleep(0.02)
            await until(lambda: len(told) == 300)
        assert told == list(range(300))
        assert landing.status() == {"received": 300, "durable": 300, "writable": True}

    asyncio.run(scenario())
    assert numbers(tmp_path) == list(range(300))


def test_many_records_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        real(descriptor)

    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 0.05)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        async with running(landing):
            for number in range(1000):
                landing.put((number, b"x"))
            await until(lambda: landing.durable == 1000)

    asyncio.run(scenario())
    assert calls <= 3, "one for the header of the segment, one for the records"


@pytest.mark.parametrize("way", ["flush", "request_flush"])
def test_a_flush_does_not_wait_for_the_interval(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 3600)
        async with running(landing):
            landing.put((1, b"x"))
            await asyncio.sleep(0.02)
            assert landing.durable == 0
            if way == "flush":
                await landing.flush()
            else:
                landing.request_flush()
                await until(lambda: landing.durable == 1)
            assert landing.durable == 1

    asyncio.run(scenario())


def test_a_segment_is_sealed_by_age_although_nothing_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path, segment_seconds=0.2), 0.01)
        async with running(landing):
            landing.put((1, b"x"))
            await until(lambda: landing.durable == 1)
            assert numbers(tmp_path) == []
            await until(lambda: numbers(tmp_path) == [1])

    asyncio.run(scenario())


def test_while_landing_is_full_nobody_is_told_and_nothing_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        landing = GroupCommit(
            make_stream(tmp_path, segment_seconds=0.05, capacity_bytes=1000), 0.01, retry_interval=0.05
        )
        told: list[int] = []
        async with running(landing):
            landing.put((0, bytes(2000)))
            await until(lambda: landing.durable == 1)
            for number in range(1, 6):
                landing.put((number, b"x"), partial(told.append, number))
            await until(lambda: not landing.is_writable)
            await asyncio.sleep(0.2)
            assert (told, landing.durable) == ([], 1)
            # The full landing is sealed nevertheless: what is not sealed is never processed, and never makes room.
            remove_segment(sealed_segments(tmp_path, "source")[0])
            async with asyncio.timeout(10):
                await landing.wait_writable()
            assert told == [1, 2, 3, 4, 5]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert [(r.levelname, "capacity_bytes is 1000" in r.message) for r in caplog.records] == [
        ("ERROR", True),
        ("WARNING", False),
    ]
    assert numbers(tmp_path) == [1, 2, 3, 4, 5]


def test_what_comes_during_a_commit_that_fails_stays_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = LandingStream.write_batch, 0

    def write(stream: LandingStream, batch: pa.RecordBatch) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.005)
        if calls % 3:
            raise SourceUnavailableError(f"write {calls} fails")
        real(stream, batch)

    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 0.001, retry_interval=0.001)
        told: list[int] = []
        monkeypatch.setattr(LandingStream, "write_batch", write)
        async with running(landing):
            for number in range(300):
                landing.put((number, b"x"), partial(told.append, number))
                await asyncio.sleep(0)
            await until(lambda: landing.durable == 300)
        assert told == list(range(300))

    asyncio.run(scenario())
    assert calls >= 3
    assert numbers(tmp_path) == list(range(300))


@pytest.mark.parametrize("bounds", [{"max_pending_records": 10}, {"max_pending_bytes": 100}], ids=["records", "bytes"])
def test_what_is_pending_is_bounded(tmp_path: Path, bounds: dict[str, int]) -> None:
    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 3600, **bounds)
        for number in range(9):
            landing.put((number, bytes(10)))
        assert landing.is_writable
        landing.put((9, bytes(10)))
        assert not landing.is_writable
        await landing.flush()
        assert landing.is_writable
        await landing.aclose()

    asyncio.run(scenario())


def test_a_commit_under_way_is_brought_to_its_end_when_run_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        time.sleep(0.1)
        real(descriptor)

    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 0.001)
        told: list[int] = []
        monkeypatch.setattr(os, "fdatasync", slow)
        async with running(landing):
            landing.put((1, b"x"), lambda: told.append(1))
            await asyncio.sleep(0.05)
            landing.put((2, b"x"), lambda: told.append(2))
        assert told == [1, 2]

    asyncio.run(scenario())
    assert numbers(tmp_path) == [1, 2]


def test_closing_seals_and_releases_the_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path), 3600)
        told: list[int] = []
        async with running(landing):
            landing.put((1, b"x"), lambda: told.append(1))
        assert told == [1]

    asyncio.run(scenario())
    assert numbers(tmp_path) == [1]
    remove_segment(sealed_segments(tmp_path, "source")[0])
    recover_streams(tmp_path, "source", dict)
    assert not stream_names(tmp_path, "source"), "the lock is free"


def test_closing_while_landing_is_full_tells_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        landing = GroupCommit(make_stream(tmp_path, capacity_bytes=10), 0.01)
        told: list[int] = []
        async with running(landing):
            landing.put((1, bytes(100)))
            await landing.flush()
            landing.put((2, b"x"), lambda: told.append(2))
        assert told == []

    asyncio.run(scenario())
    assert "1 records that could not be written" in caplog.text
    assert numbers(tmp_path) == [1]
