"""Which addresses of a range have an SNMP agent, found on demand."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from pipelines.collect.snmp import SYS_OBJECT_ID, session
from pipelines.settings.snmp import SnmpConfig, SnmpTarget
from resources.errors import ConfigurationError
from resources.snmp import Answer
from resources.snmp_ber import decode_oid

MOST_ADDRESSES = 65_536

_SYS_DESCR, _SYS_NAME = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.5.0"
_AT_ONCE = 200


@dataclass(frozen=True)
class FoundAgent:
    """An agent that answers with the credentials of ``auth``, and the modules that fit it."""

    host: str
    port: int
    auth: str
    name: str
    object_id: str
    description: str
    modules: tuple[str, ...]


def addresses(ranges: Sequence[str]) -> list[str]:
    """The addresses of ranges: ``192.0.2.7``, ``192.0.2.0/24`` (its hosts) or ``192.0.2.10-192.0.2.99``.

    Raises:
        ConfigurationError: a text that is no range, or more than ``MOST_ADDRESSES`` in all.
    """
    found: dict[str, None] = {}
    for text in ranges:
        for address in _of_range(text):
            found[str(address)] = None
            if len(found) > MOST_ADDRESSES:
                raise ConfigurationError(f"{text} goes beyond {MOST_ADDRESSES} addresses; give smaller ranges")
    return list(found)


def _of_range(text: str) -> Iterator[IPv4Address | IPv6Address]:
    try:
        if "/" in text:
            yield from ip_network(text, strict=False).hosts()
            return
        first, dash, last = text.partition("-")
        begin, end = ip_address(first), ip_address(last if dash else first)
        if begin.version != end.version or int(begin) > int(end):
            raise ValueError("it ends before it begins")
    except ValueError as error:
        accepted = "an address, a network like 192.0.2.0/24 or a range like 192.0.2.10-192.0.2.99"
        raise ConfigurationError(f"{text!r} must be {accepted}: {error}") from error
    for number in range(int(begin), int(end) + 1):
        yield type(begin)(number)


async def discover(
    config: SnmpConfig, hosts: Sequence[str], port: int, auths: Sequence[str], timeout_s: float
) -> list[FoundAgent]:
    """The agents among ``hosts``: each is asked once with each of the credentials, until one of them is answered.

    Raises:
        ConfigurationError: an auth that is not configured, or whose secret is not there.
    """
    for auth in auths:
        if auth not in config.auths:
            raise ConfigurationError(f"--auth must be one of {sorted(config.auths)}, got {auth!r}")
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(host: str) -> FoundAgent | None:
        async with turns:
            for auth in auths:
                target = SnmpTarget(host=host, port=port, auth=auth, timeout=timedelta(seconds=timeout_s), retries=0)
                asking = session(target, config.auths[auth])
                try:
                    answer = await asking.get([SYS_OBJECT_ID, _SYS_NAME, _SYS_DESCR])
                finally:
                    asking.close()
                if answer.varbinds:
                    return _found(config, target, answer)
        return None

    return [agent for agent in await asyncio.gather(*map(ask, hosts)) if agent]


def _found(config: SnmpConfig, target: SnmpTarget, answer: Answer) -> FoundAgent:
    values = {varbind.oid: varbind for varbind in answer.varbinds}
    texts = {oid: v.value.decode(errors="replace") for oid, v in values.items() if v.wire_type == "OctetString"}
    identity = values.get(SYS_OBJECT_ID)
    object_id = decode_oid(identity.value) if identity and identity.wire_type == "ObjectIdentifier" else ""
    fitting = tuple(name for name, module in config.every_module.items() if object_id and module.fits(object_id))
    name, description = texts.get(_SYS_NAME, ""), " ".join(texts.get(_SYS_DESCR, "").split())
    return FoundAgent(target.host, target.port, target.auth, name, object_id, description, fitting)
