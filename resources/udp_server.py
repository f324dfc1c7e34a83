"""A bound UDP socket in an asyncio event loop, and what the kernel dropped of it."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_MAX_DATAGRAM = 65_535
_AT_ONCE = 256
"""Datagrams that are read before others in the event loop have their turn."""

Received = Callable[[bytes, tuple[Any, ...]], None]


class UdpServer:
    """Receives from anyone; ``received`` is called with each datagram and the address that it came from.

    The address ``::`` takes IPv4, too.
    """

    def __init__(self, host: str, port: int, receive_buffer: int, received: Received) -> None:
        """Binds.

        Raises:
            OSError: the address is taken, or not one of this host.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        self._received = received
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET6:  # of :: whatever the system's default is
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def send(self, datagram: bytes, address: tuple[Any, ...]) -> None:
        """Sends at once or not at all: who gets no answer asks again."""
        with suppress(OSError):
            self._socket.sendto(datagram, address)

    def stop(self) -> None:
        """Takes what has arrived, then receives no more; it can still send."""
        self._loop.remove_reader(self._socket)
        self._read()

    def close(self) -> None:
        """Ends it."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def kernel_drops(self) -> int | None:
        """Datagrams that the kernel dropped because its buffer was full; None where it does not tell (not Linux)."""
        inode = str(os.fstat(self._socket.fileno()).st_ino)
        for name in ("udp", "udp6"):
            with suppress(OSError):
                for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[9] == inode:
                        return int(fields[-1])
        return None

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                datagram, address = self._socket.recvfrom(_MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # what the network says of an answer that was sent
            self._received(datagram, address)
