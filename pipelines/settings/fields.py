"""What the sections of secchi.toml are made of: names, sizes, hosts, secrets."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from resources.errors import ConfigurationError, reason_of
from resources.strict_model import StrictModel

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?")
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _parse_size(value: Any) -> Any:
    if isinstance(value, str):
        if not (match := _SIZE.fullmatch(value.strip())):
            raise ValueError("must be a size like '16 MiB', '10 GiB' or a number of bytes")
        return int(float(match[1]) * _SIZE_UNITS[match[2]])
    return value


Size = Annotated[int, BeforeValidator(_parse_size), Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", value) or "://" in value:
        raise ValueError("must be a host name or an address, without scheme and port")
    return value


Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Model(StrictModel):
    """Base of every section of secchi.toml; ``max-age`` is ``max_age``, and so is ``max-age-seconds`` of a duration."""

    @model_validator(mode="before")
    @classmethod
    def _underscored(cls, value: Any) -> Any:
        """Options are spelled either way; names that the user chose stay as they are."""
        if not isinstance(value, dict):
            return value
        options: dict[Any, Any] = {}
        for key in value:
            option = cls._option(key)
            if option in options:
                raise ValueError(f"has {options[option]!r} and {key!r}, which is the same option twice")
            options[option] = key
        return {option: value[key] for option, key in options.items()}

    @classmethod
    def _option(cls, key: Any) -> Any:
        """The option that a key means; the key where it means none."""
        plain = key.replace("-", "_") if isinstance(key, str) else ""
        if plain in cls.model_fields:
            return plain
        bare = plain.removesuffix("_seconds")
        kind = cls.model_fields[bare].annotation if bare != plain and bare in cls.model_fields else None
        return bare if timedelta in (kind, *get_args(kind)) else key


class Secret(Model):
    """A secret's place, never its value: ``{env = "NAME"}`` or ``{file = "path"}``."""

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_plain_text(cls, value: Any) -> Any:
        if not isinstance(value, dict | cls):  # its number, too, would be shown with the mistake
            raise ValueError('must not stand in the file; write {env = "NAME"} or {file = "path"}')
        return value

    @field_validator("file")
    @classmethod
    def _beside_the_configuration(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """A relative path is relative to secchi.toml, whose folder the validation is told."""
        folder = (info.context or {}).get("folder")
        return folder / value if folder and value else value

    @model_validator(mode="after")
    def _exactly_one(self) -> "Secret":
        if (self.env is None) == (self.file is None):
            raise ValueError('must be {env = "NAME"} or {file = "path"}')
        return self

    def reveal(self) -> str:
        """Returns the secret's value.

        Raises:
            ConfigurationError: if the variable or the file is not there.
        """
        if self.env is not None:
            if (value := os.environ.get(self.env)) is None:
                raise ConfigurationError(f"the environment variable {self.env} is not set")
            return value
        assert self.file is not None
        try:
            return self.file.read_text().rstrip("\n")
        except OSError as error:
            raise ConfigurationError(f"cannot read {reason_of(error)}") from error
        except ValueError as error:
            raise ConfigurationError(f"cannot read {self.file}: it is no UTF-8 text") from error
