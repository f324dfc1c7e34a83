"""Landing: directories of Arrow IPC segments between the collectors and bronze.

Layout: ``<root>/<source>/<collector>/<epoch>/`` is one landing stream. It holds ``lock`` (an flock that says its
collector lives), ``open.arrows`` (the segment being written) and sealed segments ``<sequence>.arrows``, numbered from
1. The epoch is a UUID made with the directory, so a recreated directory is never mistaken for an old one.

Every record batch carries the CRC-32 of its serialised form in its custom metadata (Arrow IPC, "Message"), so a torn or
half-written tail is told apart from data and is cut at the last whole batch.
"""

import errno
import fcntl
import hashlib
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from resources.errors import LandingFullError, SourceUnavailableError

_OPEN = "open.arrows"
_LOCK = "lock"
_NO_RECORDS = frozenset({_LOCK, "removed", "removed.new"})  # the last two are of earlier versions
_SEALED = f"{12 * '[0-9]'}.arrows"
_CRC = b"crc32"


@dataclass(frozen=True)
class LandingLimits:
    """When a segment is sealed, and how large landing may grow (bytes, seconds)."""

    segment_bytes: int = 16 * 1024 * 1024
    segment_seconds: float = 1.0
    capacity_bytes: int = 10 * 1024**3


def fsync_directory(path: Path) -> None:
    """Makes the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def record_batch(schema: pa.Schema, columns: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """Returns records that are given as columns of as many values each."""
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _checksum(batch: pa.RecordBatch) -> bytes:
    return str(zlib.crc32(batch.serialize())).encode()


def _make_stream_directory(parent: Path) -> tuple[Path, int]:
    """Creates and locks a stream's directory before it becomes visible under its epoch; returns it and the lock."""
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    epoch = str(uuid.uuid4())
    hidden = parent / f".new-{epoch}"
    hidden.mkdir()
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory = parent / epoch
    hidden.rename(directory)
    for path in (directory, parent, *(made.parent for made in missing)):
        fsync_directory(path)
    return directory, lock


class LandingStream:
    """The writing end of one landing stream; one collector process owns it.

    ``write`` makes records durable with one fsync, ``seal`` hands them to the planner; one thread at a time.
    """

    def __init__(self, root: Path, source: str, collector: str, schema: pa.Schema, limits: LandingLimits) -> None:
        self.root, self.source, self.schema, self.limits = root, source, schema, limits
        self.directory, self._lock = _make_stream_directory(root / source / collector)
        self.sequence = 1
        self._header = memoryview(schema.serialize())
        # pyarrow imports pandas in its first conversion, which takes more than a second: not while records wait.
        pa.array([], pa.null())
        self._file: int | None = None
        self._length = 0
        self._is_torn = False
        self._opened_at = 0.0
        self._used = 0
        self._measured_at = float("-inf")

    @property
    def name(self) -> str:
        """``collector/epoch``: the stream's name in bronze."""
        return _stream_name(self.directory)

    def write(self, records: Sequence[Sequence[Any]]) -> None:
        """Writes records (a value for each column of the schema), as ``write_batch`` does."""
        if records:
            self.write_batch(record_batch(self.schema, list(zip(*records, strict=True))))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Writes records and fsyncs them; a failed write leaves no trace.

        Raises:
            LandingFullError: landing is at its cap or the disk is full.
            SourceUnavailableError: any other error of the disk.
        """
        self._check_capacity()
        self._append(batch)

    def _append(self, batch: pa.RecordBatch) -> None:
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, self.schema) as writer:
            writer.write_batch(batch, custom_metadata={_CRC: _checksum(batch)})
            end = sink.tell()
        with self._disk_errors():
            if self._file is None:
                self._open_segment()
            # The writer puts the schema before its first batch; in the segment it stands once, at the beginning.
            self._write_durably(memoryview(sink.getvalue())[len(self._header) : end])

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = LandingFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SourceUnavailableError
            message = f"landing {self.directory}: {error.strerror}; nothing is acknowledged until it is mended"
            raise kind(message) from error

    def _open_segment(self) -> None:
        self._file = os.open(self.directory / _OPEN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._length, self._is_torn, self._opened_at = 0, False, time.monotonic()
        try:
            self._write_durably(self._header)
            fsync_directory(self.directory)
        except OSError:
            # Nothing but the header could be lost; a segment that goes on without one could not be read.
            os.close(self._file)
            self._file = None
            raise

    def _write_durably(self, data: memoryview) -> None:
        assert self._file is not None
        self._cut_torn_tail()
        self._is_torn = True
        written = 0
        while written < len(data):
            written += os.write(self._file, data[written:])
        os.fdatasync(self._file)
        if not os.fstat(self._file).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "removed under its collector, which must be restarted")
        self._is_torn = False
        self._length += len(data)
        self._used += len(data)

    def _cut_torn_tail(self) -> None:
        """Removes what a failed write left behind; data after it would be lost with it."""
        if self._is_torn and self._file is not None:
            os.ftruncate(self._file, self._length)
            os.lseek(self._file, self._length, os.SEEK_SET)
            self._is_torn = False

    def _check_capacity(self) -> None:
        # Measured once a second: where processing stands still, the directory holds a segment for every second of it.
        if self._used > self.limits.capacity_bytes or time.monotonic() - self._measured_at >= 1:
            with self._disk_errors():
                self._used, self._measured_at = _bytes_in(self.directory), time.monotonic()
        if self._used > self.limits.capacity_bytes:
            raise LandingFullError(
                f"landing {self.directory}: {self._used} bytes wait for processing and landing.capacity_bytes is "
                f"{self.limits.capacity_bytes}; nothing is acknowledged until there is room"
            )

    def is_due(self) -> bool:
        """Whether the open segment has reached its size or age."""
        if self._file is None or self._length <= len(self._header):
            return False
        age = time.monotonic() - self._opened_at
        return self._length >= self.limits.segment_bytes or age >= self.limits.segment_seconds

    def seal(self) -> Path | None:
        """Renames the open segment to its sequence number; returns its path, or None if there was none.

        Raises:
            SourceUnavailableError: an error of the disk. The segment stays open; call again.
        """
        if self._file is None:
            return None
        sealed = _sealed_path(self.directory, self.sequence)
        with self._disk_errors():
            self._cut_torn_tail()
            (self.directory / _OPEN).rename(sealed)
            os.close(self._file)
            self._file = None
            self.sequence += 1
            fsync_directory(self.directory)
        return sealed

    def close(self) -> None:
        """Seals and, even when that raises, releases the lock."""
        try:
            self.seal()
        finally:
            os.close(self._lock)


def _bytes_in(directory: Path) -> int:
    total = 0
    for entry in os.scandir(directory):
        # The planner removes segments meanwhile.
        with suppress(FileNotFoundError):
            total += entry.stat().st_size
    return total


def _sealed_path(directory: Path, sequence: int) -> Path:
    return directory / f"{sequence:012d}.arrows"


@dataclass(frozen=True)
class Segment:
    """A sealed segment, as the planner sees it."""

    source: str
    stream: str
    sequence: int
    path: Path
    size: int


def read_segment(path: Path) -> tuple[pa.Table, str]:
    """Returns the records of a segment and the SHA-256 of its bytes.

    Raises:
        pa.ArrowInvalid: if the file is no Arrow IPC stream or a batch fails its checksum.
    """
    data = path.read_bytes()
    source = pa.BufferReader(data)
    reader = ipc.open_stream(source)
    batches = list(_whole_batches(reader))
    if source.tell() != len(data):
        raise pa.ArrowInvalid(f"{path}: {len(data) - source.tell()} bytes behind an end marker")
    return pa.Table.from_batches(batches, reader.schema), hashlib.sha256(data).hexdigest()


def _whole_batches(reader: ipc.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            batch.validate(full=True)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise pa.ArrowInvalid(f"record batch cannot be read: {error}") from error
        if metadata is None or metadata.get(_CRC) != _checksum(batch):
            raise pa.ArrowInvalid("record batch fails its CRC-32")
        yield batch


def sealed_segments(root: Path, source: str) -> list[Segment]:
    """The sealed segments of a source in landing order: stream, then sequence."""
    found = []
    for directory in _stream_directories(root, source):
        stream = _stream_name(directory)
        for path in directory.glob(_SEALED):
            found.append(Segment(source, stream, int(path.stem), path, path.stat().st_size))
    return sorted(found, key=lambda s: (s.stream, s.sequence))


def has_sealed_segments(root: Path) -> bool:
    """Whether any source has a sealed segment."""
    return any(True for _ in root.glob(f"*/*/*/{_SEALED}"))


def recover_streams(root: Path, source: str, taken: Callable[[], Mapping[str, int]]) -> list[str]:
    """Seals what dead collectors left open and removes their empty directories; returns the streams it sealed.

    A stream is dead when its lock is free. The torn tail of its open segment is cut at the last whole batch: it was
    never acknowledged. ``taken`` gives the last sequence of each stream that is committed now: none is used again.
    """
    sealed = []
    for directory in _stream_directories(root, source):
        lock = _try_lock(directory)
        if lock is None:
            continue
        try:
            if _seal_open_segment(directory, taken):
                sealed.append(_stream_name(directory))
            _remove_if_empty(directory)
        finally:
            os.close(lock)
    return sealed


def stream_names(root: Path, source: str) -> set[str]:
    """The streams of a source that have a directory."""
    return {_stream_name(directory) for directory in _stream_directories(root, source)}


def _stream_name(directory: Path) -> str:
    return f"{directory.parent.name}/{directory.name}"


def _stream_directories(root: Path, source: str) -> list[Path]:
    return sorted(d for d in (root / source).glob("*/*") if d.is_dir() and not d.name.startswith("."))


def _try_lock(directory: Path) -> int | None:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _seal_open_segment(directory: Path, taken: Callable[[], Mapping[str, int]]) -> bool:
    path = directory / _OPEN
    if not path.exists():
        return False
    whole, rows = _whole_length(path)
    if not rows:
        path.unlink()
        return False
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    path.rename(_sealed_path(directory, _last_sequence(directory, taken) + 1))
    fsync_directory(directory)
    return True


def _last_sequence(directory: Path, taken: Callable[[], Mapping[str, int]]) -> int:
    """The highest sequence used so far: of the sealed segments and of those already committed and removed."""
    sealed = [int(path.stem) for path in directory.glob(_SEALED)]
    # Asked for after looking: what another planner has removed meanwhile, it has committed before.
    return max([taken().get(_stream_name(directory), 0), *sealed])


def _whole_length(path: Path) -> tuple[int, int]:
    """Bytes up to the end of the last whole batch, and the number of rows in them."""
    source = pa.BufferReader(path.read_bytes())
    try:
        reader = ipc.open_stream(source)
        batches = _whole_batches(reader)
    except (pa.ArrowInvalid, OSError):
        return 0, 0
    whole, rows = source.tell(), 0
    while True:
        try:
            rows += next(batches).num_rows
        except (StopIteration, pa.ArrowInvalid):
            return whole, rows
        whole = source.tell()


def remove_segment(segment: Segment) -> None:
    """Deletes a committed segment."""
    segment.path.unlink(missing_ok=True)


def _remove_if_empty(directory: Path) -> None:
    if {path.name for path in directory.iterdir()} - _NO_RECORDS:
        return
    for name in _NO_RECORDS:
        (directory / name).unlink(missing_ok=True)
    directory.rmdir()
