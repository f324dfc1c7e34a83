"""What every step of a micro-batch is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from assets.catalog import load_tables
from assets.declarations import UnknownFields
from assets.scoring import check_policy
from assets.table import Column, Table
from data_quality.unknown_fields import EXTRA
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

    def mode_of(self, table: Table) -> UnknownFields:
        """What becomes of the fields of a payload that no declared column of the table takes."""
        return self.config.unknown_fields.get(table.identifier, "freeze")


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
    new_fields: dict[str, str] = field(default_factory=dict)

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
    check_names(config, tables)
    lakehouse = Lakehouse(path)
    return Context(lakehouse, with_evolved(lakehouse, tables), config, ModelStore(path / "models"), run_id)


def with_evolved(lakehouse: Lakehouse, tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables, those with unknown fields with the columns that were added to them; creates nothing."""
    return {
        name: _evolved(table, lakehouse.added_columns(table.stored)) if EXTRA in table.schema else table
        for name, table in tables.items()
    }


def _evolved(table: Table, added: Mapping[str, tuple[pl.DataType, str]]) -> Table:
    lineage = next(c.lineage for c in table.columns if c.name == EXTRA)
    columns = [Column(n, t, about, lineage=lineage) for n, (t, about) in added.items() if n not in table.schema]
    return replace(table, columns=(*table.columns, *columns)) if columns else table


def check_names(config: Config, tables: Mapping[str, Table]) -> None:
    """Every table that the configuration names is there, and is of the kind that it is named for.

    Raises:
        ConfigurationError: one is not.
    """
    timed = sorted(identifier for identifier, table in tables.items() if table.time is not None)
    open_ended = sorted(identifier for identifier, table in tables.items() if EXTRA in table.schema)
    for key, named, allowed in (
        ("maintenance.retention", config.maintenance.retention, timed),
        ("unknown_fields", config.unknown_fields, open_ended),
    ):
        for identifier in named:
            if identifier not in allowed:
                raise ConfigurationError(f"{config.source}: {key}: must name one of {allowed}, got {shown(identifier)}")
    for number, policy in enumerate(config.ml.rules()):
        try:
            check_policy(policy, tables)
        except ValueError as error:
            raise ConfigurationError(f"{config.source}: ml.policy[{number}]: {error}") from error
