"""A file that says which process does something that one alone may do."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resources.errors import ConfigurationError


@dataclass(frozen=True)
class ProcessLock:
    """One process holds the file locked; its process id stands in it."""

    path: Path

    def pid(self) -> int | None:
        """The process that holds it now; None if there is none."""
        try:
            with self.path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(self.path.read_text() or 0) or None
        except FileNotFoundError:
            pass
        return None

    @contextmanager
    def held(self, refusal: str) -> Iterator[None]:
        """Holds it for this process.

        Raises:
            ConfigurationError: another process does, told by ``refusal``, or the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(f"lakehouse.path: cannot write {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise ConfigurationError(f"lakehouse.path: {refusal} ({self.path} is locked); stop it first") from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(lock)
