"""What was just written, kept in memory: the next layer reads it at once."""

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

import polars as pl


class RecentFrames:
    """The newest frames by the location of their data file, at most ``most_bytes`` of them; for any thread."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames: OrderedDict[str, tuple[pl.DataFrame, int]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def put(self, location: str, frame: pl.DataFrame) -> None:
        """Keeps a frame; the oldest ones make room."""
        size = int(frame.estimated_size())
        with self._lock:
            self._frames[location] = frame, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= self._frames.popitem(last=False)[1][1]

    def among(self, locations: Iterable[str]) -> dict[str, pl.DataFrame]:
        """Those of the files whose frames are kept."""
        with self._lock:
            return {location: self._frames[location][0] for location in locations if location in self._frames}
