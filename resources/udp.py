"""A connected UDP socket in an asyncio event loop.

Unlike asyncio's datagram transport it keeps nothing to send later: a request that cannot go out now is sent again when
its time is up, and not twice.
"""

import asyncio
import socket
from collections.abc import Callable

_MAX_DATAGRAM = 65_535


class UdpSocket:
    """Sends to one address and receives from it alone: the kernel drops what others send.

    ``received`` is called with each datagram; ``failed`` with what the kernel has to say, e.g. that a port is closed.
    """

    def __init__(
        self, connected: socket.socket, received: Callable[[bytes], None], failed: Callable[[OSError], None]
    ) -> None:
        self._socket, self._received, self._failed = connected, received, failed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected, self._read)

    def send(self, datagram: bytes) -> None:
        """Sends at once or not at all, as UDP does."""
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            pass  # the buffer of the interface is full: the datagram is lost, as it may be anywhere
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Receives no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            datagram = self._socket.recv(_MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(error)
            return
        self._received(datagram)


async def connected_socket(host: str, port: int) -> socket.socket:
    """A non-blocking UDP socket to the first address of ``host`` that there is a way to.

    Raises:
        OSError: the name has no address, or there is a way to none of them.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    problem: OSError = OSError(f"no address for {host!r}")
    for family, kind, protocol, _, address in addresses:
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.connect(address)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem
