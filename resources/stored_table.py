"""What storage knows of a table. Light, so that declarations can be read without the storage libraries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl


@dataclass(frozen=True)
class Partition:
    """A partition field: a column and how its value is cut."""

    column: str
    transform: Literal["identity", "hour", "day"]


@dataclass(frozen=True)
class StoredTable:
    """What storage knows of a table: its name, typed columns, partitioning, and the order of rows within a file."""

    layer: str
    name: str
    schema: Mapping[str, pl.DataType]
    partitions: tuple[Partition, ...] = ()
    sort: tuple[str, ...] = ()
    wide: frozenset[str] = frozenset()  # columns without statistics: their bounds prune nothing
    required: frozenset[str] = frozenset()  # columns that no row may lack, also none that was written before

    @property
    def identifier(self) -> str:
        """``layer.name``."""
        return f"{self.layer}.{self.name}"
