"""What users declare in TOML, and in which file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ml.groups import Group

UnknownFields = Literal["freeze", "evolve", "discard_row", "discard_value"]
"""What becomes of the fields of a payload that no declared column takes; see ``data_quality.unknown_fields``."""


@dataclass(frozen=True)
class Declarations:
    """The declarations of one file.

    Attributes:
        source: the file; it starts the messages about them.
        calculations: its ``[[calculation]]`` tables.
        references: what its ``[[reference]]`` tables say of the tables they make.
        thresholds: its ``[[threshold]]`` tables.
        groups: its ``[[ml.group]]`` tables.
    """

    source: str
    calculations: tuple[Mapping[str, Any], ...] = ()
    references: tuple[Mapping[str, Any], ...] = ()
    thresholds: tuple[Mapping[str, Any], ...] = ()
    groups: tuple[Group, ...] = ()
