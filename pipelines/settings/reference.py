"""``[[reference]]``: a file or a database whose rows are kept as a versioned reference table."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipelines.settings.fields import Model, Secret
from resources.durations import PositiveDuration, spelled
from resources.reference_files import FileFormat, format_of

if TYPE_CHECKING:
    from sqlalchemy import URL

_Text = Annotated[str, Field(min_length=1)]
_OF_DATABASES = ("password", "query", "table")
_EVERY = timedelta(hours=1)


def _parsed(text: str) -> "URL":
    """A database URL; SQLAlchemy is loaded where there is one."""
    from resources.reference_databases import parse_url

    return parse_url(text)


class ReferenceConfig(Model):
    """``[[reference]]``: where the rows come from and when they are looked at again; the rest is ``declaration``."""

    name: str
    description: str | None = None
    key: list[str] | None = None
    columns: dict[str, str] | None = None
    file: Path | None = None
    format: FileFormat | None = None
    url: str | None = None
    password: Secret | None = None
    query: _Text | None = None
    table: _Text | None = None
    timeout: PositiveDuration = timedelta(seconds=30)
    valid_from: _Text | None = None
    valid_to: _Text | None = None
    every: PositiveDuration | None = None

    @field_validator("file")
    @classmethod
    def _beside_the_configuration(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """A relative path is relative to secchi.toml, whose folder the validation is told."""
        folder = (info.context or {}).get("folder")
        return folder / value if folder and value else value

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        url = _parsed(value)
        words = ("pass", "pwd", "secret", "token")
        if url.password is not None or any(word in name.lower() for name in url.query for word in words):
            raise ValueError('must not hold a password; write password = {env = "NAME"} or {file = "path"}')
        folder = (info.context or {}).get("folder")
        if (
            url.get_backend_name() == "sqlite"
            and url.database
            and folder
            and not url.database.startswith((":", "file:"))
        ):
            url = url.set(database=str(folder / url.database))
        return url.render_as_string(hide_password=False)

    @model_validator(mode="after")
    def _makes_sense(self) -> "ReferenceConfig":
        if (self.file is None) == (self.url is None):
            raise ValueError("file is missing; it, or url with query or table, says where the rows are (not both)")
        if self.valid_to and not self.valid_from:
            raise ValueError("valid_from is missing: valid_to tells the end of what starts there")
        if self.file is None and (self.query is None) == (self.table is None):
            raise ValueError("query is missing; it, or table, says what is read of url (not both)")
        if self.file is None and self.format is not None:
            raise ValueError("format is of a file; url has none")
        if self.file is not None and (given := [n for n in _OF_DATABASES if getattr(self, n) is not None]):
            raise ValueError(f"{given[0]} is of a url; file has none")
        if self.file is not None and self.format is None and format_of(self.file) is None:
            raise ValueError(
                f"format is missing: 'csv', 'parquet', 'json' or 'ndjson'; the name {self.file.name!r} does not tell it"
            )
        return self

    @property
    def file_format(self) -> FileFormat:
        """What is said, or what the file's name tells."""
        assert self.file is not None
        found = self.format or format_of(self.file)
        assert found is not None
        return found

    @property
    def looked_at_every(self) -> timedelta | None:
        """How often it is looked at; None: when the file changes."""
        return self.every or (_EVERY if self.file is None else None)

    @property
    def rhythm(self) -> str:
        """When it is looked at, for people."""
        parts = ["when it changes"] if self.file is not None else []
        parts += [f"every {spelled(self.looked_at_every)}"] if self.looked_at_every else []
        return " and ".join(parts)

    @property
    def place(self) -> str:
        """Where the rows are, for people."""
        if self.url is None:
            return str(self.file)
        return f"{self.table or 'a query'} of {_parsed(self.url).set(query={}).render_as_string()}"

    def database(self) -> "URL":
        """The URL with its password.

        Raises:
            ConfigurationError: the password's variable or file is not there.
        """
        assert self.url is not None
        url = _parsed(self.url)
        return url.set(password=self.password.reveal()) if self.password else url

    @property
    def declaration(self) -> dict[str, Any]:
        """What the table is made of."""
        told = self.model_dump(include={"name", "description", "key", "columns"})
        return {**told, "source": f"`{self.file.name if self.file else self.place}`"}
