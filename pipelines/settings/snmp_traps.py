"""``[snmp_traps]``: where traps and INFORMs are received, from whom, and how many."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pipelines.settings.fields import Host, Model, Name, Port, Size

Network = IPv4Network | IPv6Network


def _network(value: Any) -> Any:
    try:
        return ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be an address or a network like '10.0.0.0/8'") from None


class SnmpTraps(Model):
    """``[snmp_traps]``: one UDP port for all versions.

    ``users`` names the [snmp.auths] of version 3 that are read; ``allow`` and ``deny`` are networks of sources, and the
    narrower one decides. ``rate`` is how many datagrams of one source are taken a second, with bursts of twice as many;
    0 for any number.
    """

    host: Host = "127.0.0.1"
    port: Port = 9162
    users: list[Name] = []
    allow: list[Annotated[Network, BeforeValidator(_network)]] = []
    deny: list[Annotated[Network, BeforeValidator(_network)]] = []
    rate: Annotated[float, Field(ge=0)] = 1000
    receive_buffer: Size = 8 * 2**20
