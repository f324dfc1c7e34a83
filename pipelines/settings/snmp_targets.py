"""The files that ``snmp.target_files`` names: ``[[targets]]`` in TOML, or CSV with a header line.

A CSV file has the columns of ``[[snmp.targets]]``; several modules stand in one field with a space or ``;`` between. An
empty field is the default.
"""

import csv
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.settings.snmp import SnmpConfig, SnmpTarget
from resources.errors import ConfigurationError
from resources.strict_model import first_mistake


def with_target_files(config: SnmpConfig, folder: Path, source: str) -> SnmpConfig:
    """The configuration with the targets of its files added; globs are relative to ``folder``.

    Raises:
        ConfigurationError: a pattern without a file, a file that cannot be read, or the first mistake in one.
    """
    placed = [(f"{source}: snmp.targets[{index}]", target) for index, target in enumerate(config.targets)]
    for pattern in config.target_files:
        anchor = Path(pattern).anchor
        found = Path(anchor).glob(pattern.removeprefix(anchor)) if anchor else folder.glob(pattern or "no name")
        paths = sorted(path for path in found if path.is_file())
        if not paths:
            raise ConfigurationError(f"{source}: snmp.target_files has {pattern!r}, and no file in {folder} is of it")
        placed += [target for path in paths for target in _read(path)]
    try:
        config.check_targets(placed)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return config.model_copy(update={"targets": [target for _, target in placed]})


def _read(path: Path) -> Iterator[tuple[str, SnmpTarget]]:
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, skipinitialspace=True)
                for row in reader:
                    yield _checked(f"{path} line {reader.line_num}", _of_csv(row))
        elif path.suffix == ".toml":
            document = tomllib.loads(path.read_text())
            if unknown := sorted(document.keys() - {"targets"}):
                raise ConfigurationError(f"{path}: {unknown[0]} is not a known key; the file holds [[targets]]")
            for index, target in enumerate(document.get("targets", [])):
                yield _checked(f"{path}: targets[{index}]", target)
        else:
            raise ConfigurationError(f"{path}: snmp.target_files are .toml or .csv files, got {path.suffix!r}")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _of_csv(row: dict[str | None, Any]) -> dict[str, Any]:
    given = {name: value.strip() if isinstance(value, str) else value for name, value in row.items() if value}
    target = {str(name).strip(): value for name, value in given.items()}
    if isinstance(modules := target.get("modules"), str):
        target["modules"] = modules.replace(";", " ").split()
    return target


def _checked(place: str, target: Any) -> tuple[str, SnmpTarget]:
    try:
        return place, SnmpTarget.model_validate(target)
    except ValidationError as error:
        raise ConfigurationError(f"{place}: {first_mistake(error)}") from error
