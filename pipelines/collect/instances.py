"""The processes that collect for a lakehouse: one for all sources, and others beside it for shared subscriptions."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import Config
from pipelines.settings.mqtt import MqttBroker
from pipelines.settings.snmp import SnmpConfig
from resources.errors import ConfigurationError
from resources.topics import is_shared

_LOCK, _STATUS = "collectors.lock", "collectors.json"


@dataclass(frozen=True)
class Instance:
    """One process that collects for a lakehouse: the one without a name collects from all that is configured."""

    lakehouse: Path
    name: str = ""

    @property
    def folder(self) -> Path:
        """What it has to know after a restart stands here."""
        return self.lakehouse / "status" / self.name

    @property
    def status_path(self) -> Path:
        """Its status file; it is written every second."""
        return self.folder / _STATUS

    @property
    def _lock_path(self) -> Path:
        """The file that the process holds locked; its process id stands in it."""
        return self.folder / _LOCK

    def pid(self) -> int | None:
        """The process that collects now; None if there is none."""
        try:
            with self._lock_path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(self._lock_path.read_text() or 0) or None
        except FileNotFoundError:
            pass
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock that says that this process is it.

        Raises:
            ConfigurationError: another process is, or the lakehouse cannot be written.
        """
        path = self._lock_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigurationError(f"lakehouse.path: cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            as_whom = f" as instance {self.name}" if self.name else ""
            raise ConfigurationError(
                f"lakehouse.path: another process collects for {self.lakehouse}{as_whom} ({path} is locked); stop it "
                "first, or give this one another --instance, which takes its part of the shared subscriptions"
            ) from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(lock)


def instances(lakehouse: Path) -> list[Instance]:
    """Those that collect or have collected for a lakehouse, the one for all sources first."""
    named = sorted(path.parent.name for path in (lakehouse / "status").glob(f"*/{_LOCK}"))
    return [Instance(lakehouse, name) for name in ("", *named)]


def part_of(config: Config, name: str) -> Config:
    """What of a configuration an instance collects: with a name, its part of the shared subscriptions; without, all.

    To the brokers it is a client of its own: its name stands behind the client id, and below the state topic.

    Raises:
        ConfigurationError: it has a name, and nothing is shared.
    """
    if not name:
        return config
    shared = [_client_of_its_own(broker, name) for broker in config.mqtt if any(map(is_shared, broker.topics))]
    if not shared:
        raise ConfigurationError(
            f"nothing to collect: instance {name} takes its part of the shared subscriptions only, and no "
            "topic in [[mqtt]] begins with '$share/'"
        )
    return config.model_copy(update={"mqtt": shared, "snmp": SnmpConfig(), "snmp_traps": None})


def _client_of_its_own(broker: MqttBroker, name: str) -> MqttBroker:
    own = {
        "topics": list(filter(is_shared, broker.topics)),
        "client_id": f"{broker.client}-{name}",
        "state_topic": broker.state_topic and f"{broker.state_topic}/{name}",
    }
    return broker.model_copy(update=own)
