"""``[[fault_labels]]``: files that say when devices misbehaved."""

from pathlib import Path

from pydantic import ValidationInfo, field_validator

from pipelines.settings.fields import Model


class LabelFile(Model):
    """``[[fault_labels]]``: a CSV file."""

    file: Path

    @field_validator("file")
    @classmethod
    def _beside_the_configuration(cls, value: Path, info: ValidationInfo) -> Path:
        """A relative path is relative to secchi.toml, whose folder the validation is told."""
        folder = (info.context or {}).get("folder")
        return folder / value if folder else value
