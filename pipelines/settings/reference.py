"""``[[reference]]``: a file or a database whose rows are kept as a versioned reference table."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipelines.settings.fields import Model
from resources.durations import PositiveDuration
from resources.reference_files import FileFormat, format_of

_Column = Annotated[str, Field(min_length=1)]


class ReferenceConfig(Model):
    """``[[reference]]``: where the rows come from and when they are looked at again; the rest is ``declaration``."""

    name: str
    description: str | None = None
    key: list[str] | None = None
    columns: dict[str, str] | None = None
    file: Path
    format: FileFormat | None = None
    valid_from: _Column | None = None
    valid_to: _Column | None = None
    every: PositiveDuration | None = None

    @field_validator("file")
    @classmethod
    def _beside_the_configuration(cls, value: Path, info: ValidationInfo) -> Path:
        """A relative path is relative to secchi.toml, whose folder the validation is told."""
        folder = (info.context or {}).get("folder")
        return folder / value if folder else value

    @model_validator(mode="after")
    def _makes_sense(self) -> "ReferenceConfig":
        if self.valid_to and not self.valid_from:
            raise ValueError("valid_from is missing: valid_to tells the end of what starts there")
        if self.format is None and format_of(self.file) is None:
            raise ValueError(
                f"format is missing: 'csv', 'parquet', 'json' or 'ndjson'; the name {self.file.name!r} does not tell it"
            )
        return self

    @property
    def file_format(self) -> FileFormat:
        """What is said, or what the file's name tells."""
        found = self.format or format_of(self.file)
        assert found is not None
        return found

    @property
    def declaration(self) -> dict[str, Any]:
        """What the table is made of."""
        told = self.model_dump(include={"name", "description", "key", "columns"})
        return {**told, "source": f"`{self.file.name}`"}
