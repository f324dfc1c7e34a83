"""Models of what users write: unknown keys are refused with the nearest right one, a mistake is told in one line."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from resources.errors import ConfigurationError

_UNKNOWN = "unknown_key"
_OWN_WORDS = ("value_error", _UNKNOWN)
_SHAPES = ("list_type", "dict_type", "model_type")
_SHOWN_CHARACTERS = 80

Model = TypeVar("Model", bound=BaseModel)


class StrictModel(BaseModel):
    """Base of every section of a file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = next((key for key in value if key not in known), None) if isinstance(value, dict) else None
        if unknown is not None:
            near = get_close_matches(str(unknown), known, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise PydanticCustomError(_UNKNOWN, "is not a known key{meant}", {"meant": meant, "key": str(unknown)})
        return value


def validated(model: type[Model], given: Mapping[str, Any], place: str) -> Model:
    """The model of what a user wrote at a place.

    Raises:
        ConfigurationError: one line with the place and the first mistake.
    """
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise ConfigurationError(f"{place}: {first_mistake(error)}") from error


def shown(value: Any) -> str:
    """A value as Python writes it, for a message; a long one is cut."""
    return shortened(repr(value))


def shortened(text: str, most: int = _SHOWN_CHARACTERS) -> str:
    """A text for a message; a long one is cut."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def first_mistake(error: ValidationError) -> str:
    """One line for the first mistake: its key, what is wrong, the value.

    Unknown keys come first: they are often why another one is missing.
    """
    first = min(error.errors(include_url=False), key=lambda mistake: mistake["type"] != _UNKNOWN)
    text = re.sub(r"^\w+ should", "must", first["msg"].removeprefix("Value error, "))
    if first["type"] == "missing":
        text = "is missing"
    elif first["type"] in _SHAPES:
        text = _shape(first["type"], first["input"], _place(first["loc"]))
    elif first["type"] not in _OWN_WORDS and not isinstance(first["input"], dict | list):
        text = f"{text}, got {shown(first['input'])}"
    location = (*first["loc"], first["ctx"]["key"]) if first["type"] == _UNKNOWN else first["loc"]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{_place(location)} {text}{more}"


def _shape(kind: str, given: Any, place: str) -> str:
    """What is wrong with a value that is no table, or no list, where one is wanted."""
    wants_list = kind == "list_type"
    if wants_list and isinstance(given, dict) and "[" not in place:
        return f"may stand several times; write [[{place}]] in double brackets"
    if not wants_list and isinstance(given, list):
        return f"stands once; write [{place}] in single brackets"
    wanted = f"a list like [{shown(given)}]" if wants_list else "a table like {name = value}"
    return f"must be {wanted}, got {shown(given)}"


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        if part != "[key]":  # pydantic's word for a mistake in a key, which stands before it
            place += f"[{part}]" if isinstance(part, int) else f".{shortened(part)}" if place else shortened(part)
    return place or "the file"
