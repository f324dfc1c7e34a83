"""A TCP proxy that can be told to misbehave: reset what it carries, delay it, or carry nothing."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST


class Proxy:
    """Carries connections from ``port`` to another port of 127.0.0.1, in a thread of its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0
        self._target = target
        self._is_stalled = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._serving = threading.Event()
        threading.Thread(target=self._run, name="proxy", daemon=True).start()
        self._serving.wait()

    def reset(self) -> None:
        """Ends every connection with RST; what was under way is lost."""
        self._loop.call_soon_threadsafe(self._abort)

    def stall(self, is_stalled: bool) -> None:
        """Carries nothing while this is so; connections stay."""
        self._is_stalled = is_stalled

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._serving.set()
        self._loop.run_forever()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, far_writer}
            try:
                await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
            finally:
                self._writers -= {writer, far_writer}
                far_writer.close()
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                while self._is_stalled:
                    await asyncio.sleep(0.05)
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()
