"""Walks of a real agent, line by line beside net-snmp's own tool."""

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence

import pytest

from resources.snmp import SnmpSession
from resources.snmp_ber import decode_oid
from resources.snmp_message import Varbind
from resources.snmp_usm import UsmUser
from tests.resources.snmpd import run_tool, snmpd

ROOT = "1.3.6.1.2.1"
USER = UsmUser("reader", "SHA-256", "auth password", "AES-128", "priv password")
CREDENTIALS = ("-u", "reader", "-a", "SHA-256", "-A", "auth password", "-x", "AES", "-X", "priv password")
AUTHS = {"2c": ("-v2c", "-c", "public"), "3": ("-v3", "-l", "authPriv", *CREDENTIALS)}
CONFIGURATION = """
createUser reader SHA-256 "auth password" AES "priv password"
rouser reader authpriv
load 12 10 5
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd"), more=CONFIGURATION) as port:
        yield port


def number(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def opaque(value: bytes) -> str:
    name, layout = {b"\x9f\x78\x04": ("Float", ">f"), b"\x9f\x79\x08": ("Double", ">d")}[value[:3]]
    return f"Opaque: {name}: {struct.unpack(layout, value[3:])[0]:f}"


SHOWN: dict[str, Callable[[bytes], str]] = {
    "Integer32": lambda value: f"INTEGER: {number(value)}",
    "Counter32": lambda value: f"Counter32: {number(value)}",
    "Gauge32": lambda value: f"Gauge32: {number(value)}",
    "Counter64": lambda value: f"Counter64: {number(value)}",
    "TimeTicks": lambda value: str(number(value)),
    "OctetString": lambda value: f"Hex-STRING: {value.hex(' ').upper()} " if value else '""',
    "ObjectIdentifier": lambda value: f"OID: .{decode_oid(value)}",
    "IpAddress": lambda value: f"IpAddress: {'.'.join(map(str, value))}",
    "OpaqueFloat": opaque,
    "OpaqueDouble": opaque,
}


def lines(varbinds: Sequence[Varbind]) -> list[str]:
    """As net-snmp shows them with -Onetx."""
    return [f".{varbind.oid} = {SHOWN[varbind.wire_type](varbind.value)}".strip() for varbind in varbinds]


@pytest.mark.parametrize("root", [ROOT, "1.3.6.1.4.1.2021", "1.3.6.1.6"])
@pytest.mark.parametrize("version", ["2c", "3"])
def test_a_walk_is_that_of_snmpbulkwalk_line_by_line(agent: int, version: str, root: str) -> None:
    async def walk() -> list[Varbind]:
        user = USER if version == "3" else None
        session = SnmpSession("127.0.0.1", agent, "3" if user else "2c", user=user)
        try:
            answer = await session.walk(root)
        finally:
            session.close()
        assert answer.error is None
        return list(answer.varbinds)

    def tool() -> list[str]:
        shown = run_tool("snmpbulkwalk", agent, root, auth=AUTHS[version], output="netx").stdout.splitlines()
        return [line.strip() for line in shown if not line.endswith("(It is past the end of the MIB tree)")]

    before, found, after = tool(), lines(asyncio.run(walk())), tool()
    # A counter may have moved meanwhile; what both runs of the tool show is what ours must show.
    same = {line.partition(" = ")[0]: line for line in set(before) & set(after)}
    ours = {line.partition(" = ")[0]: line for line in found}
    assert len(same) > 0.5 * len(before) > 20
    assert {oid: ours.get(oid) for oid in same} == same
    held = {line.partition(" = ")[0] for line in before} & {line.partition(" = ")[0] for line in after}
    assert [line.partition(" = ")[0] for line in before if line.partition(" = ")[0] in held] == [
        oid for oid in ours if oid in held
    ]
    assert held <= ours.keys()
