"""A FileIO for local warehouses whose files are durable when they are closed.

pyiceberg calls no fsync. A commit's data files, manifests and metadata must survive a power cut before the catalog
points at them, so every output stream fsyncs its file and the directory entry on close; the catalog is swapped only
after that.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.manifest import DataFile

from resources.landing import fsync_directory


def local_path(location: str) -> Path | None:
    """The path of a local location (``/x`` or ``file:///x``); None for a remote one."""
    url = urlparse(location)
    if url.scheme not in ("", "file"):
        return None
    return Path(url.path)


class _DurableStream:
    """Wraps an output stream; ``close`` returns after file and directory entry are on disk."""

    def __init__(self, stream: OutputStream, path: Path) -> None:
        self._stream, self._path, self._closed = stream, path, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stream.close()
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fsync_directory(self._path.parent)

    def __enter__(self) -> "_DurableStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _DurableFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        stream = super().create(overwrite)
        path = local_path(self.location)
        return _DurableStream(stream, path) if path else stream


class DurableFileIO(PyArrowFileIO):
    """PyArrowFileIO that fsyncs what it writes to a local file system. Named by the catalog property ``py-io-impl``."""

    def new_output(self, location: str) -> PyArrowFile:
        """Returns an output file whose stream is durable when closed."""
        scheme, netloc, path = self.parse_location(location, self.properties)
        return _DurableFile(fs=self.fs_by_scheme(scheme, netloc), location=location, path=path)


def unreadable_file(files: Iterable[DataFile]) -> str | None:
    """What is wrong with the first local data file that is gone or cut, and the way out; None if none is."""
    for file in files:
        if (path := local_path(file.file_path)) is None:
            continue
        if not path.exists():
            return f"data file {path} is gone; restore it from a backup"
        if path.stat().st_size != file.file_size_in_bytes:
            return f"data file {path} is damaged; restore it from a backup"
    return None
