"""A real net-snmp agent on a free UDP port, unprivileged."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services import require_binary

_CONF = """\
rocommunity {community} 127.0.0.1
rocommunity6 {community} ::1
sysDescr an agent for tests
sysContact ops@example.com
sysLocation BN:1/FN:2
"""


def free_udp_port() -> int:
    """A UDP port of 127.0.0.1 that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_tool(
    name: str, port: int, *arguments: str, auth: Sequence[str] = ("-v2c", "-c", "public"), output: str = "nQeU"
) -> subprocess.CompletedProcess[str]:
    """Runs one of net-snmp's command line tools against the agent; ``output`` holds its letters of the option -O."""
    options = [*auth, f"-O{output}", "-t", "1", "-r", "3", "--hexOutputLength=0"]
    return subprocess.run(
        [require_binary(name), *options, f"127.0.0.1:{port}", *arguments],
        env={**os.environ, "MIBS": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )


@contextmanager
def snmpd(folder: Path, community: str = "public", port: int | None = None, more: str = "") -> Iterator[int]:
    """Runs the agent and gives its port; it answers on 127.0.0.1 and, where there is one, on ::1.

    ``more`` stands in its configuration. It keeps engine id and boots in ``folder``.
    """
    port = port or free_udp_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "snmpd.conf").write_text(_CONF.format(community=community) + more)
    listen = [f"udp:127.0.0.1:{port}", *([f"udp6:[::1]:{port}"] if has_ipv6() else [])]
    options = ["-f", "-Lo", "-C", "-c", str(folder / "snmpd.conf"), "-p", str(folder / "pid"), "-I", "-smux"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [require_binary("snmpd"), *options, *listen],
            stdout=log,
            stderr=log,
            env={**os.environ, "SNMP_PERSISTENT_DIR": str(folder), "MIBS": ""},
        )
    try:
        _wait_ready(port, process, folder / "log", community)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def has_ipv6() -> bool:
    """Whether ::1 can be used here."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path, community: str) -> None:
    # A GET of sysUpTime.0, written out so that the wait does not rest on the code under test.
    name = community.encode()
    pdu = bytes.fromhex("a019020101020100020100300e300c06082b060102010103000500")
    body = b"\x02\x01\x01\x04" + bytes([len(name)]) + name + pdu
    deadline = time.monotonic() + 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        probe.connect(("127.0.0.1", port))
        while True:
            try:
                probe.send(b"\x30" + bytes([len(body)]) + body)
                probe.recv(1000)
                return
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "snmpd does not answer within 10 s"
                time.sleep(0.02)
