"""Group commit: many records become durable with one fsync, and only then are they acknowledged."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

import pyarrow as pa

from resources.errors import SourceUnavailableError
from resources.landing import LandingStream, record_batch

logger = logging.getLogger(__name__)

OnDurable = Callable[[], None]

_GROUP_BYTES = 16 * 2**20
# So many values become Arrow's at once, while they are in the processor's cache; of fewer each costs more.
_BATCH_RECORDS, _BATCH_BYTES = 1000, 2**20


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class GroupCommit:
    """Makes the records of one source durable in groups, and tells their senders in order.

    Used from one event loop only; the disk is written in a worker thread. While landing is full or failing, records
    stay pending, nobody is told, and the write is tried again every ``retry_interval`` seconds.
    """

    def __init__(
        self,
        stream: LandingStream,
        interval: float = 0.02,
        *,
        max_pending_records: int = 100_000,
        max_pending_bytes: int = 64 * 2**20,
        retry_interval: float = 1.0,
    ) -> None:
        self.received = 0
        self.durable = 0
        self._stream = stream
        self._interval, self._retry_interval = interval, retry_interval
        self._max_records, self._max_bytes = max_pending_records, max_pending_bytes
        self._columns = self._no_values()
        self._values_bytes = 0
        self._batches: list[pa.RecordBatch] = []  # what came before the columns
        self._batches_bytes = 0
        self._tellers: deque[tuple[int, OnDurable]] = deque()  # whom to call when so many are durable
        self._widest = next((i for i, column in enumerate(stream.schema) if pa.types.is_binary(column.type)), None)
        self._failure: SourceUnavailableError | None = None
        self._turn = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._flush_requested = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def _pending(self) -> int:
        """Records that are not durable yet, those that are being written included."""
        return self.received - self.durable

    @property
    def _is_full(self) -> bool:
        return self._pending >= self._max_records or self._values_bytes + self._batches_bytes >= self._max_bytes

    @property
    def is_writable(self) -> bool:
        """Whether more records may be put: landing takes them, and those pending are within bounds."""
        return self._writable.is_set()

    async def wait_writable(self) -> None:
        """Returns as soon as landing takes records again."""
        await self._writable.wait()

    def put(self, record: Sequence[Any], on_durable: OnDurable | None = None) -> None:
        """Adds a record, a value for each column; ``on_durable`` is called in the event loop once it is durable.

        A caller that goes on while ``is_writable`` is false makes the process grow.
        """
        self.put_all([(value,) for value in record], on_durable)

    def put_all(
        self, columns: Sequence[Sequence[Any]], on_durable: OnDurable | None = None, more_bytes: int = 0
    ) -> None:
        """Adds records that came together, as columns of as many values each.

        ``on_durable`` is called once all of them are durable. What is pending is counted by the values of the first
        binary column, and by ``more_bytes`` of others that may be large.
        """
        for pending, values in zip(self._columns, columns, strict=True):
            pending += values
        self.received += len(columns[0])
        if on_durable:
            self._tellers.append((self.received, on_durable))
        self._values_bytes += more_bytes
        if (widest := self._widest) is not None:
            self._values_bytes += sum(map(len, columns[widest]))
        if len(self._columns[0]) >= _BATCH_RECORDS or self._values_bytes >= _BATCH_BYTES:
            self._gather()
        self._arrived.set()
        if self._is_full:
            self._writable.clear()

    def request_flush(self) -> None:
        """Asks ``run`` to commit at once, without waiting for it."""
        self._flush_requested.set()

    async def flush(self) -> None:
        """Commits what is pending now, and seals the segment if it is due; a failure leaves the records pending."""
        # Shielded: a commit that runs in its thread cannot be called back, and who sent its records must be told.
        await asyncio.shield(asyncio.ensure_future(self._commit_and_seal()))

    async def run(self) -> None:
        """Commits and seals until it is cancelled."""
        idle = max(self._interval, self._stream.limits.segment_seconds / 10)
        while True:
            await _wait(self._arrived, idle)
            if self._pending:
                await _wait(self._flush_requested, self._interval)
            self._arrived.clear()
            self._flush_requested.clear()
            await self.flush()
            if self._failure:
                await asyncio.sleep(self._retry_interval)

    async def aclose(self) -> None:
        """Commits, tells the senders, seals and releases the stream; cancel ``run`` first."""
        await self.flush()
        if self._pending:
            logger.error(
                "landing %s: stopped with %d records that could not be written; they are not acknowledged",
                self._stream.name,
                self._pending,
            )
        async with self._turn:
            with suppress(SourceUnavailableError):  # logged when it began
                await asyncio.to_thread(self._stream.close)

    def status(self) -> dict[str, Any]:
        """Counters for the status file."""
        return {"received": self.received, "durable": self.durable, "writable": self.is_writable}

    async def _commit_and_seal(self) -> None:
        async with self._turn:
            failure, upto = None, self.received
            while True:
                try:
                    await self._commit()
                except SourceUnavailableError as error:
                    failure = error
                try:
                    # Also while landing is full: only sealed segments are processed and removed.
                    if self._stream.is_due():
                        await asyncio.to_thread(self._stream.seal)
                except SourceUnavailableError as error:
                    failure = failure or error
                if failure or self.durable >= upto:
                    break
            self._note_failure(failure)

    async def _commit(self) -> None:
        """Writes the first that are pending; what cannot be written stays before what came meanwhile."""
        self._gather()
        sizes = accumulate(batch.nbytes for batch in self._batches)
        count = next((n for n, size in enumerate(sizes, start=1) if size >= _GROUP_BYTES), len(self._batches))
        if group := self._batches[:count]:
            await asyncio.to_thread(self._write, group)
            del self._batches[:count]
            self._batches_bytes -= sum(batch.nbytes for batch in group)
            self.durable += sum(batch.num_rows for batch in group)
        while self._tellers and self._tellers[0][0] <= self.durable:
            self._tellers.popleft()[1]()

    def _write(self, group: list[pa.RecordBatch]) -> None:
        self._stream.write_batch(pa.concat_batches(group))

    def _gather(self) -> None:
        """Makes one batch of the values that are not in one yet."""
        if self._columns[0]:
            batch = record_batch(self._stream.schema, self._columns)
            self._columns, self._values_bytes = self._no_values(), 0
            self._batches.append(batch)
            self._batches_bytes += batch.nbytes

    def _no_values(self) -> list[list[Any]]:
        return [[] for _ in self._stream.schema]

    def _note_failure(self, failure: SourceUnavailableError | None) -> None:
        if failure and type(failure) is not type(self._failure):
            logger.error("%s", failure)
        elif self._failure and not failure:
            logger.warning("landing %s: takes records again", self._stream.name)
        self._failure = failure
        self._note_writable()

    def _note_writable(self) -> None:
        if self._is_full or self._failure:
            self._writable.clear()
        else:
            self._writable.set()
