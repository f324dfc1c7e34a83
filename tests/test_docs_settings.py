"""docs/settings.md has every key that the models have, with the default that they have."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from assets.calculation import _Definition as _Windows
from assets.catalog import load_tables
from assets.enriching import _Enrichment
from assets.joining import _Join
from assets.threshold import _Threshold
from ml.quantities import FEATURES
from pipelines.config import Config, parse_config
from pipelines.context import check_names
from pipelines.settings.fields import Secret

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "settings.md").read_text()
DECLARED: dict[str, tuple[str, list[type[BaseModel]]]] = {
    "calculation": ("calculations.md", [_Windows, _Join, _Enrichment]),
    "threshold": ("thresholds.md", [_Threshold]),
}
"""Sections whose models are those of tables, and the page that has their keys."""


def parts(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models of a field, each with the brackets that a section of it stands in."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield ("[{}]", annotation) if annotation is not Secret else ("", annotation)
    elif origin in (list, dict):
        shape = "[[{}]]" if origin is list else "[{}.NAME]"
        yield from ((shape if brackets else "", model) for brackets, model in parts(arguments[-1]))
    elif origin in (Union, UnionType, Annotated):
        yield from (found for argument in arguments for found in parts(argument))


def sections(model: type[BaseModel], place: str = "") -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Heading, place and model of each section below a model."""
    for name, option in model.model_fields.items():
        path = f"{place}.{option.alias or name}".lstrip(".")
        for brackets, found in parts(option.annotation):
            if brackets:
                yield brackets.format(path), path, found
                yield from sections(found, path)


SECTIONS = {heading: model for heading, _, model in sections(Config)}


def rows(heading: str) -> dict[str, str]:
    """The keys of the table below a heading of the page, with what it tells of their defaults."""
    texts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
    assert heading in texts, f"docs/settings.md has no section {heading}"
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", texts[heading], flags=re.MULTILINE))


def own(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The options of a model that are no sections of their own, by their key."""
    found = {option.alias or name: option for name, option in model.model_fields.items()}
    return {
        key: option for key, option in found.items() if not any(brackets for brackets, _ in parts(option.annotation))
    }


def wrong(key: str, option: FieldInfo, told: str) -> str | None:
    """What is wrong with what is told of a default."""
    if option.is_required() or told == "required":
        return None if option.is_required() == (told == "required") else f"{key} is told as {told}"
    if told == "—":
        return None if option.default is None else f"{key} has the default {option.default!r}, and none is told"
    if told == "all":
        return None if option.default == list(FEATURES) else f"{key} has the default {option.default!r}, not all"
    written = tomllib.loads(f"it = {told.strip('`')}")["it"]
    kind: Any = Annotated[(option.annotation, *option.metadata)] if option.metadata else option.annotation
    value = TypeAdapter(kind).validate_python(written)
    return None if value == option.default else f"{key} has the default {option.default!r}, {told} is told"


def test_sections_are_found() -> None:
    wanted = {"[landing]", "[[mqtt]]", "[mqtt.tls]", "[snmp.auths.NAME]", "[[snmp.targets]]", "[[ml.policy]]"}
    assert wanted <= SECTIONS.keys()


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_told_with_its_default(heading: str) -> None:
    options, told = own(SECTIONS[heading]), rows(heading)
    assert options.keys() == told.keys()
    assert [found for key, option in options.items() if (found := wrong(key, option, told[key]))] == []


def test_every_key_of_the_file_is_told() -> None:
    """Those that are no sections have a row or, where they are tables or declared by others, a heading."""
    headings = set(re.findall(r"^## \[+(\w+)\]+$", PAGE, flags=re.MULTILINE))
    assert headings | rows("The file itself").keys() == Config.model_fields.keys()
    assert wrong("include", Config.model_fields["include"], rows("The file itself")["include"]) is None


@pytest.mark.parametrize("section", DECLARED)
def test_page_of_a_section_has_every_key_of_it(section: str) -> None:
    page, models = DECLARED[section]
    assert f"]({page})" in PAGE
    texts = [(DOCS / name).read_text() for name in (page, "reference.md")] + [(DOCS.parent / "README.md").read_text()]
    blocks = [b for text in texts for b in re.findall(r"^ *```toml\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)]
    shown = set[str]()
    for definition in (d for block in blocks for d in tomllib.loads(block).get(section, [])):
        shown |= set(keys_of(definition))
    listed = {f"{section}.{key}" for key in re.findall(r"^\| `(\w+)` \|", texts[0], flags=re.MULTILINE)}
    known = {path for model in models for path in keys_of_model(model)}
    assert {path for path in known if f"{section}.{path}" not in listed and path not in shown} == set()


def keys_of(given: Any, place: str = "") -> Iterator[str]:
    """The paths of the keys of a parsed table."""
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, dict):
            for key, value in each.items():
                yield (path := f"{place}.{key}".lstrip("."))
                yield from keys_of(value, path)


def keys_of_model(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """The paths of the keys that a model takes."""
    for name, option in model.model_fields.items():
        yield (path := f"{place}.{option.alias or name}".lstrip("."))
        for _, found in parts(option.annotation):
            yield from keys_of_model(found, path)


def test_negative_controls() -> None:
    """A default that moved, one that is missing, and one that came, are seen."""
    option = SECTIONS["[landing]"].model_fields["segment_age"]
    assert wrong("segment_age", option, '`"1s"`') is None
    assert [wrong("segment_age", option, told) is None for told in ('`"2s"`', "—", "required")] == 3 * [False]


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
def test_examples_name_tables_that_are_there(block: str) -> None:
    config = parse_config(tomllib.loads(block), "settings.md")
    check_names(config, load_tables(declared=config.declared))


def test_secrets_are_told() -> None:
    assert all(f"`{{{key} = " in PAGE for key in Secret.model_fields)
