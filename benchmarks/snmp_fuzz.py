"""The last part of make bench-snmp: mutated traps through the engine and into events, mutated answers to the poller.

Every trap is a row of silver.trap_events or a reject with its reason; every answer is read, or dropped with what is
wrong. Memory is looked at in four quarters: in the first, caches fill; what the others add is growth.
"""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import polars as pl

from assets.bronze.snmp_traps import snmp_traps
from assets.reference.mib_objects import mib_objects
from assets.silver.trap_events import trap_events
from assets.table import Outputs
from benchmarks.snmp_traps import Figures, processor
from resources.snmp_engine import SnmpEngine
from tests.collect.trap_collecting import USERS
from tests.resources.test_snmp_fuzz import PLAIN, USER, answered, mutations
from tests.resources.test_snmp_notification import SEEDS

_BLOCK = 5_000
_QUARTERS = 4
_ENGINE_ID = b"\x80\x00\x1f\x88\x80"
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def fuzz(datagrams: int, answers: int) -> Figures:
    """Both, and how much each grew."""
    return {**_traps(datagrams), **_answers(answers)}


def _traps(count: int) -> Figures:
    engine, rng, objects = SnmpEngine(_ENGINE_ID, 3, USERS), Random(0), _objects()
    refused: Counter[str] = Counter()

    def block(number: int) -> None:
        data = [one for _ in range(_BLOCK) for one in mutations(rng.choice(SEEDS), 1, rng.getrandbits(32))]
        for datagram in data:
            with suppress(ValueError):
                engine.judge(datagram)
        events = _events(data, objects)
        told = Counter(events.rejects["reason"])
        assert events.rows.height + told.total() == len(data), "a datagram is neither kept nor counted"
        refused.update(told)

    blocks = _rounded(count)
    with processor() as used:
        grown = _growth(block, blocks)
    total = blocks * _BLOCK
    print(
        f"fuzz: {total} traps in {used[1]:.0f} s ({used[0]:.0f} s of processor time), "
        f"events {total - refused.total()}, refused {dict(refused)}; "
        f"after the first quarter memory grew {grown:.1f} MiB"
    )
    return {"fuzz_traps": str(total), "fuzz_traps_grown_mib": f"{grown:.1f}"}


def _answers(count: int) -> Figures:
    """Answers of v2c, of v3 without and with encryption, in turns."""
    ways, rng, read, dropped = [answered(user) for user in (None, PLAIN, USER)], Random(1), 0, 0

    def block(number: int) -> None:
        nonlocal read, dropped
        security, whole = ways[number % len(ways)]
        for datagram in mutations(whole, _BLOCK, rng.getrandbits(32)):
            try:
                security.unwrap(datagram, 0)
            except ValueError:
                dropped += 1
            else:
                read += 1

    blocks = _rounded(count)
    with processor() as used:
        grown = _growth(block, blocks)
    total = blocks * _BLOCK
    assert read + dropped == total, "an answer is neither read nor dropped"
    print(
        f"fuzz: {total} answers in {used[1]:.0f} s ({used[0]:.0f} s of processor time), "
        f"read {read}, dropped {dropped}; after the first quarter memory grew {grown:.1f} MiB"
    )
    return {"fuzz_answers": str(total), "fuzz_answers_grown_mib": f"{grown:.1f}"}


def _rounded(count: int) -> int:
    """How many blocks hold at least ``count``, the same in each quarter."""
    return -(-count // (_BLOCK * _QUARTERS)) * _QUARTERS


def _growth(block: Callable[[int], None], blocks: int) -> float:
    """Runs the blocks; MiB of memory in use at the end more than after the first quarter."""
    before = 0.0
    for number in range(blocks):
        block(number)
        if number == blocks // _QUARTERS - 1:
            before = _memory_mib()
    return _memory_mib() - before


def _memory_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_MIB


def _objects() -> pl.DataFrame:
    assert mib_objects.function is not None
    objects: pl.DataFrame = mib_objects.function()
    return objects


def _events(datagrams: list[bytes], objects: pl.DataFrame) -> Outputs:
    place = {
        "listener": "0.0.0.0:162",
        "source_address": "192.0.2.7",
        "source_port": 5000,
        "stream": "s",
        "sequence": 1,
    }
    place["received_at"] = datetime(2026, 1, 5, tzinfo=UTC)
    rows = [{**place, "datagram": datagram, "row": number} for number, datagram in enumerate(datagrams)]
    schema = {name: kind for name, kind in snmp_traps.schema.items() if name not in ("ingested_at", "batch_id")}
    assert trap_events.function is not None
    outputs: Outputs = trap_events.function(pl.DataFrame(rows, schema), mib_objects=objects, users=USERS)
    return outputs
