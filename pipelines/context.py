"""What every step of a micro-batch is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from assets.catalog import load_tables
from assets.table import Table
from pipelines.config import Config
from resources.errors import ConfigurationError
from resources.lakehouse import Lakehouse
from resources.model_store import ModelStore
from resources.strict_model import shown


def utc_now() -> datetime:
    """The wall clock, UTC."""
    return datetime.now(UTC)


@dataclass
class Context:
    """Storage, declarations and configuration of one process, and the run it works for."""

    lakehouse: Lakehouse
    tables: Mapping[str, Table]
    config: Config
    models: ModelStore
    run_id: str = "process"
    clock: Callable[[], datetime] = utc_now

    @property
    def landing(self) -> Path:
        """Root of the landing streams."""
        return self.config.landing_path


@dataclass
class TableResult:
    """What one micro-batch did to one table.

    ``has_looked``: its side input was looked at; ``problem``: why it could not be used, so that the last version stays.
    """

    table: str
    batch_id: int = 0
    snapshot_id: int | None = None
    rows: int = 0
    duplicates: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    lag_seconds: float | None = None
    has_more: bool = False
    has_looked: bool = False
    problem: str | None = None
    error: str | None = None

    @property
    def did_work(self) -> bool:
        """Whether anything was committed."""
        return self.batch_id > 0


def open_context(config: Config, run_id: str = "process") -> Context:
    """Opens the lakehouse of a configuration; creates its directory when it is new.

    Raises:
        ConfigurationError: a declaration has a mistake, or the configuration names a table that cannot be what it asks.
    """
    path, tables = config.lakehouse.path, load_tables(declared=config.declared)
    check_retention(config, tables)
    return Context(Lakehouse(path), tables, config, ModelStore(path / "models"), run_id)


def check_retention(config: Config, tables: Mapping[str, Table]) -> None:
    """Every table with a retention is there and has a time by which its rows are old.

    Raises:
        ConfigurationError: one is not.
    """
    timed = sorted(identifier for identifier, table in tables.items() if table.time is not None)
    for identifier in config.maintenance.retention:
        if identifier not in timed:
            raise ConfigurationError(
                f"{config.source}: maintenance.retention: must name one of {timed}, got {shown(identifier)}"
            )
