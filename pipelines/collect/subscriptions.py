"""What a persistent session is subscribed to: kept on disk, because a broker does not tell."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from resources.errors import SourceUnavailableError
from resources.landing import fsync_directory

logger = logging.getLogger(__name__)


class Subscriptions:
    """The filters that the session of one client may hold, in ``<folder>/mqtt-<name>.subscriptions.json``."""

    def __init__(self, folder: Path, name: str, session: str) -> None:
        self._path = folder / f"mqtt-{name}.subscriptions.json"
        self._session = session
        self._known = self._read()

    @property
    def known(self) -> tuple[str, ...]:
        """Filters that were subscribed to and not known to have ended."""
        return self._known

    def write(self, filters: Iterable[str]) -> None:
        """Makes durable that these, and no others, may be subscribed to.

        Raises:
            SourceUnavailableError: an error of the disk.
        """
        wanted = tuple(sorted(set(filters)))
        if wanted == self._known:
            return
        draft = self._path.with_suffix(".new")
        try:
            with draft.open("w") as file:
                json.dump({"session": self._session, "filters": wanted}, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            fsync_directory(self._path.parent)
        except OSError as error:
            raise SourceUnavailableError(f"{self._path}: cannot write: {error.strerror}") from error
        self._known = wanted

    def _read(self) -> tuple[str, ...]:
        try:
            document = json.loads(self._path.read_text())
            return tuple(document["filters"]) if document["session"] == self._session else ()
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: not readable; earlier subscriptions of the session may go on: %s", self._path, error)
            return ()
