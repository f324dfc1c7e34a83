"""Recorded devices served by the simulator and polled whole by the collector: every OID, type and value."""

import asyncio
import bz2
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto.api import v2c
from pysnmp.proto.rfc1902 import (
    Counter32,
    Counter64,
    Gauge32,
    Integer32,
    IpAddress,
    ObjectIdentifier,
    OctetString,
    Opaque,
    TimeTicks,
)

from pipelines.collect.snmp import SnmpCollector
from pipelines.simulate.snmp_recorded import RecordedAgent, RecordedEndpoint, RecordedMib, read_recording
from resources.errors import ConfigurationError
from resources.snmp import Answer, SnmpSession
from resources.snmp_ber import sub_identifiers
from resources.snmp_usm import UsmUser
from tests.collect.test_snmp import config, landed, landing
from tests.resources.snmpd import run_tool

TYPES = {
    "2": Integer32,
    "4": OctetString,
    "6": ObjectIdentifier,
    "64": IpAddress,
    "65": Counter32,
    "66": Gauge32,
    "67": TimeTicks,
    "68": Opaque,
    "70": Counter64,
}
FEW = """\
1.3.6.1.2.1.1.1.0|4|a recorded device
1.3.6.1.2.1.1.2.0|6|1.3.6.1.4.1.9.1.516
1.3.6.1.2.1.1.3.0|67|4711
1.3.6.1.2.1.2.2.1.6.1|4x|00deadbeef00
1.3.6.1.2.1.4.20.1.1.10.0.0.1|64|10.0.0.1
1.3.6.1.2.1.31.1.1.1.6.1|70|18446744073709551615
1.3.6.1.4.1.2021.10.1.6.1|68x|9f78043ee147ae
"""
USER = UsmUser("reader", "SHA-256", "auth password", "AES-128", "priv password")


def recordings() -> list[Path]:
    folder = os.environ.get("SECCHI_TEST_DATA")
    return sorted(Path(folder, "snmp").glob("*.snmprec*")) if folder else []


def expected(path: Path) -> dict[str, tuple[str, bytes]]:
    """OID to wire type and content octets, encoded by pysnmp."""
    raw = bz2.decompress(path.read_bytes()) if path.suffix == ".bz2" else path.read_bytes()
    found = {}
    for line in raw.decode("latin-1").replace("\r", "").split("\n"):
        if not line or line.startswith("#"):
            continue
        oid, tag, text = line.split("|", 2)
        tag, _, variation = tag.partition(":")
        if variation:
            text = text.partition("=")[2].partition(",")[0] if variation == "writecache" else initial(text)
        made = TYPES[tag.removesuffix("x")]
        value = bytes.fromhex(text) if tag.endswith("x") else text.encode("latin-1") if tag in ("4", "68") else text
        encoded = encoder.encode(made(hexValue=value.hex()) if isinstance(value, bytes) else made(value))
        size = 2 if encoded[1] < 0x80 else 2 + (encoded[1] & 0x7F)
        found[oid] = (made.__name__, encoded[size:])
    return found


def initial(text: str) -> str:
    options = dict(option.split("=") for option in text.split(","))
    return str(options.get("initial", options.get("min", "0")))


@pytest.mark.parametrize("path", recordings() or [None], ids=lambda p: p.name.split(".")[0] if p else "none")
def test_a_recorded_device_lands_whole(tmp_path: Path, path: Path | None) -> None:
    if path is None:
        pytest.skip("SECCHI_TEST_DATA names no folder with snmp/*.snmprec")
    agent = RecordedAgent(RecordedMib(read_recording(path)))

    async def run() -> dict[str, Any]:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: RecordedEndpoint(agent), local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        module = {"walk": ["1.0", "1.2", "1.3"], "interval": 1}
        made = config({"all": module}, {"port": port, "modules": ["all"], "timeout": 10})
        async with landing(tmp_path) as commits, asyncio.timeout(120):
            collector = SnmpCollector(made, *commits, lambda target, status: stop.set())
            await collector.run(stop)
        transport.close()
        return collector.status()

    (status,) = asyncio.run(run()).values()
    wanted = expected(path)
    found = {row["oid"]: (row["wire_type"], row["value"]) for row in landed(tmp_path)}
    assert (status["last_error"], status["varbinds"]) == (None, len(wanted))
    assert found.keys() == wanted.keys()
    assert {oid: found[oid] for oid in wanted if found[oid] != wanted[oid]} == {}


@pytest.fixture
def few(tmp_path: Path) -> Iterator[RecordedMib]:
    (tmp_path / "few.snmprec").write_text(FEW)
    yield RecordedMib(read_recording(tmp_path / "few.snmprec"))


def asked(agent: RecordedAgent, *operations: tuple[str, Any], **options: Any) -> list[Answer]:
    async def run() -> list[Answer]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: RecordedEndpoint(agent), local_addr=("127.0.0.1", 0))
        session = SnmpSession("127.0.0.1", transport.get_extra_info("sockname")[1], **{"timeout_s": 1, **options})
        try:
            return [await getattr(session, name)(argument) for name, argument in operations]
        finally:
            session.close()
            transport.close()

    return asyncio.run(run())


@pytest.mark.parametrize("options", [{"version": "1"}, {}, {"version": "3", "user": USER}], ids=["1", "2c", "3"])
def test_every_version_brings_the_same(few: RecordedMib, options: dict[str, Any]) -> None:
    agent = RecordedAgent(few, users=[USER])
    walk, get = asked(agent, ("walk", "1.3"), ("get", ["1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.9.0"]), **options)
    assert (walk.error, len(walk.varbinds)) == (None, 7)
    assert [v.wire_type for v in walk.varbinds] == [
        *("OctetString", "ObjectIdentifier", "TimeTicks", "OctetString", "IpAddress", "Counter64", "OpaqueFloat"),
    ]
    missing = "noSuchName" if options.get("version") == "1" else "noSuchObject"
    assert {v.oid: v.wire_type for v in get.varbinds} == {
        "1.3.6.1.2.1.1.3.0": "TimeTicks",
        "1.3.6.1.2.1.1.9.0": missing,
    }


def test_net_snmp_reads_the_simulator_as_we_do(few: RecordedMib) -> None:
    """Agent and session share their reading of BER; net-snmp's tool does not."""

    async def run() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: RecordedEndpoint(RecordedAgent(few, users=[USER])), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        credentials = ("-u", "reader", "-a", "SHA-256", "-A", "auth password", "-x", "AES", "-X", "priv password")
        auth = ("-v3", "-l", "authPriv", *credentials)
        done = await asyncio.to_thread(run_tool, "snmpbulkwalk", port, "1.3", auth=auth, output="netx")
        transport.close()
        return done.stdout

    lines = asyncio.run(run()).splitlines()
    assert [line.partition(" = ")[2].strip() for line in lines[:7]] == [
        f"Hex-STRING: {b'a recorded device'.hex(' ').upper()}",
        "OID: .1.3.6.1.4.1.9.1.516",
        "4711",
        "Hex-STRING: 00 DE AD BE EF 00",
        "IpAddress: 10.0.0.1",
        "Counter64: 18446744073709551615",
        "Opaque: Float: 0.440000",
    ]


@pytest.mark.parametrize("most", [200, 400, 1400])
def test_a_walk_fits_itself_to_what_the_agent_can_answer(most: int) -> None:
    objects = read_objects(3000)
    (answer,) = asked(RecordedAgent(RecordedMib(objects), max_bytes=most), ("walk", "1.3"))
    assert answer.error is None
    assert [v.oid for v in answer.varbinds] == [o.oid for o in objects]


class Limited(RecordedEndpoint):
    """An agent that answers a GETBULK of more than ``most`` rows with tooBig, or not at all."""

    def __init__(self, agent: RecordedAgent, most: int, *, is_silent: bool) -> None:
        super().__init__(agent)
        self.most, self.is_silent, self.rows = most, is_silent, list[int]()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        request = decoder.decode(data, asn1Spec=v2c.Message())[0]
        pdu = v2c.apiMessage.get_pdu(request)
        self.rows.append(int(v2c.apiBulkPDU.get_max_repetitions(pdu)))
        if self.rows[-1] <= self.most:
            super().datagram_received(data, addr)
        elif not self.is_silent:
            answer = v2c.apiMessage.get_response(request)
            v2c.apiPDU.set_error_status(v2c.apiMessage.get_pdu(answer), 1)
            self._transport.sendto(encoder.encode(answer), addr)


@pytest.mark.parametrize(("is_silent", "timeouts"), [(False, 0), (True, 1)])
def test_rows_are_halved_where_they_are_too_many_and_grow_again(is_silent: bool, timeouts: int) -> None:
    objects = read_objects(400)
    endpoint = Limited(RecordedAgent(RecordedMib(objects)), 20, is_silent=is_silent)

    async def run() -> list[Answer]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: endpoint, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        session = SnmpSession("127.0.0.1", port, timeout_s=0.1, retries=1, max_repetitions=40)
        try:
            first = await session.walk("1.3")
            endpoint.most = 100
            return [first, *[await session.walk("1.3") for _ in range(2)]]
        finally:
            session.close()
            transport.close()

    first, _, last = asyncio.run(run())
    assert first.error is None and last.error is None
    assert [v.oid for v in first.varbinds] == [v.oid for v in last.varbinds] == [o.oid for o in objects]
    assert first.traffic.timeouts >= timeouts and last.traffic.timeouts == 0
    assert endpoint.rows[:2] == [40, 20] and endpoint.rows[-1] == 40


def test_an_agent_that_falls_silent_in_a_walk_is_asked_for_fewer_rows() -> None:
    objects = read_objects(400)
    endpoint = Limited(RecordedAgent(RecordedMib(objects)), 100, is_silent=True)
    answered = endpoint.datagram_received

    def weaken(data: bytes, addr: Any) -> None:
        answered(data, addr)
        endpoint.most = 3

    endpoint.datagram_received = weaken  # type: ignore[method-assign]

    async def run() -> Answer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: endpoint, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        session = SnmpSession("127.0.0.1", port, timeout_s=0.05, retries=0, max_repetitions=40)
        try:
            return await session.walk("1.3")
        finally:
            session.close()
            transport.close()

    answer = asyncio.run(run())
    assert (answer.error, len(answer.varbinds)) == (None, len(objects))
    assert endpoint.rows[:6] == [40, 40, 20, 10, 5, 2]


def read_objects(count: int) -> list[Any]:
    from pipelines.simulate.snmp_recorded import Recorded

    return sorted(
        (Recorded(f"1.3.6.1.4.1.32473.{n}", 4, b"x" * (n % 30)) for n in range(1, count)),
        key=lambda each: sub_identifiers(each.oid),
    )


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.snmprec").write_text("# a device\n1.3.6.1|4|x\n1.3.6.2|99|x\n")
    with pytest.raises(ConfigurationError, match="line 3: tag '99' is not known"):
        read_recording(tmp_path / "a.snmprec")
