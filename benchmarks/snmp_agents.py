"""Thousands of simulated agents on one UDP socket: each address of 127.0.0.0/8 is a device of its own.

``python -m benchmarks.snmp_agents --port 1161 --targets 3000``: the first target is 127.1.0.0. Every fifth speaks v3
(SHA-256, AES-128), each with an engine id of its own; every twentieth is dead. Objects: sysUpTime and friends, and the
counters of 40 interfaces.
"""

import argparse
import socket
import struct
from ipaddress import IPv4Address

from pipelines.simulate.snmp_recorded import Recorded, RecordedAgent, RecordedMib
from resources.snmp_ber import integer
from resources.snmp_usm import UsmUser

USER = UsmUser("bench", "SHA-256", "auth password", "AES-128", "priv password")
GETS = [f"1.3.6.1.4.1.32473.1.{n}.0" for n in range(1, 21)]
WALK = "1.3.6.1.2.1.2.2.1.10"
OIDS = len(GETS) + 40
_FIRST = int(IPv4Address("127.1.0.0"))
_IP_PKTINFO = 8  # ip(7)


def address(index: int) -> str:
    """Where a target is."""
    return str(IPv4Address(_FIRST + index))


def is_dead(index: int) -> bool:
    """Whether a target never answers: one in twenty."""
    return index % 20 == 7


def is_v3(index: int) -> bool:
    """Whether a target speaks v3: one in five."""
    return index % 5 == 0


def objects() -> list[Recorded]:
    """What each target has: ``OIDS`` objects that are asked for, and some behind them."""
    counters = [Recorded(f"{WALK}.{n}", 0x41, integer(n * 1_000_003)[2:]) for n in range(1, 41)]
    behind = [Recorded(f"1.3.6.1.2.1.2.2.1.11.{n}", 0x41, b"\x01") for n in range(1, 41)]
    return [*counters, *behind, *(Recorded(oid, 0x42, integer(n * 77)[2:]) for n, oid in enumerate(GETS))]


def serve(port: int, targets: int) -> None:
    """Answers until it is killed."""
    mib = RecordedMib(objects())
    agents = {
        socket.inet_aton(address(index)): RecordedAgent(
            mib, users=[USER] if is_v3(index) else (), engine_id=b"\x80\x00\x7e\xd9\x01" + struct.pack(">I", index)
        )
        for index in range(targets)
        if not is_dead(index)
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        listener.bind(("0.0.0.0", port))
        print("listening", flush=True)
        while True:
            datagram, ancillary, _, sender = listener.recvmsg(65_535, 64)
            # struct in_pktinfo: interface, our address as the sender's route has it, the address asked.
            asked = ancillary[0][2][8:12]
            agent = agents.get(asked)
            answer = agent.answer(datagram) if agent else None
            if answer:
                information = struct.pack("=I4s4s", 0, asked, asked)
                listener.sendmsg([answer], [(socket.IPPROTO_IP, _IP_PKTINFO, information)], 0, sender)


def main() -> None:
    """Serves what the options say."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--targets", type=int, default=3000)
    chosen = options.parse_args()
    serve(chosen.port, chosen.targets)


if __name__ == "__main__":
    main()
