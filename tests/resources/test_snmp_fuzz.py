"""Mutated answers to the poller: each is read or dropped, nothing else happens, and no walk runs for ever."""

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.simulate.snmp_recorded import Recorded, RecordedAgent, RecordedMib
from resources.snmp import Answer, SnmpSession
from resources.snmp_message import encode_request
from resources.snmp_security import CommunitySecurity, Security, UsmSecurity
from resources.snmp_usm import UsmUser

USER = UsmUser("reader", "SHA-256", "auth password", "AES-128", "priv password")
PLAIN = UsmUser("plain")
OIDS = [f"1.3.6.1.2.1.{n}.0" for n in range(1, 20)]
MIB = RecordedMib(Recorded(oid, tag, b"\x05" * 4) for oid, tag in zip(OIDS, (2, 4, 0x40, 0x41, 0x46) * 4, strict=False))
MUTATIONS = int(os.environ.get("SECCHI_MUTATIONS", "5000"))
"""How many answers each case mutates."""


def mutations(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at, kind = chance.randrange(len(data)), chance.randrange(4)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 2:
                del data[at : at + chance.randint(1, 8)]
                data = data or bytearray(b"\0")
            else:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
        yield bytes(data)


def answered(user: UsmUser | None) -> tuple[Security, bytes]:
    """What reads answers, and one that it takes."""
    agent = RecordedAgent(MIB, users=[USER, PLAIN])
    if user is None:
        whole = agent.answer(encode_request("2c", b"public", "get", OIDS, 7))
        assert whole
        return CommunitySecurity("2c", b"public"), whole
    security = UsmSecurity(user)
    report = agent.answer(security.probe(1))
    assert report
    security.unwrap(report, 0)
    whole = agent.answer(security.wrap("get", OIDS, 7, 0))
    assert whole
    return security, whole


@pytest.mark.parametrize("user", [None, PLAIN, USER], ids=["2c", "3", "3 encrypted"])
def test_a_mutated_answer_is_read_or_dropped(user: UsmUser | None) -> None:
    security, whole = answered(user)
    assert len(security.unwrap(whole, 0).response.varbinds) == len(OIDS)
    read = 0
    for data in mutations(whole, MUTATIONS, seed=1):
        try:
            answer = security.unwrap(data, 0)
        except ValueError as error:
            assert str(error)
        else:
            read += 1
            assert all(len(varbind.value) <= len(data) for varbind in answer.response.varbinds)
    if user is USER:
        # What is left to change is behind the message.
        assert read < MUTATIONS / 100
    else:
        assert 0 < read < MUTATIONS


class Mutating(asyncio.DatagramProtocol):
    """An agent whose answers are mutated, all but the first of every three."""

    def __init__(self) -> None:
        self.agent, self.random, self.count = RecordedAgent(MIB), random.Random(2), 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self.agent.answer(data)
        self.count += 1
        if answer and self.count % 3:
            answer = next(mutations(answer, 1, self.random.getrandbits(32)))
        if answer:
            self.transport.sendto(answer, addr)


def test_walks_of_an_agent_that_answers_garbage_end() -> None:
    async def run() -> list[Answer]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Mutating, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        sessions = [SnmpSession("127.0.0.1", port, timeout_s=0.01, retries=2, max_repetitions=4) for _ in range(10)]
        try:
            async with asyncio.timeout(60):
                return [
                    answer
                    for _ in range(20)
                    for answer in await asyncio.gather(*(session.walk("1.3") for session in sessions))
                ]
        finally:
            for session in sessions:
                session.close()
            transport.close()

    answers = asyncio.run(run())
    assert any(answer.error is None for answer in answers)
    for answer in answers:
        oids = [tuple(map(int, varbind.oid.split("."))) for varbind in answer.varbinds]
        assert oids == sorted(set(oids))
