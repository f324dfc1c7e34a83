"""The processes that collect for a lakehouse: one for all sources, and others beside it for shared subscriptions."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipelines.config import Config
from pipelines.settings.mqtt import MqttBroker
from pipelines.settings.snmp import SnmpConfig
from resources.errors import ConfigurationError
from resources.process_lock import ProcessLock
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
    def lock(self) -> ProcessLock:
        """Says which process it is."""
        return ProcessLock(self.folder / _LOCK)

    def held(self) -> AbstractContextManager[None]:
        """Holds the lock that says that this process is it.

        Raises:
            ConfigurationError: another process is, or the lakehouse cannot be written.
        """
        as_whom = f" as instance {self.name}" if self.name else ""
        return self.lock.held(f"another process collects for {self.lakehouse}{as_whom}")


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
