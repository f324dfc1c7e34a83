"""``[snmp.modules.NAME]``: what is read from an agent. Those of well-known devices come with Secchi, as data."""

import re
import tomllib
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from pipelines.settings.fields import Model
from resources.durations import PositiveDuration

AUTO = "auto"
"""Stands in a target's modules for those that fit its sysObjectID."""

_SHIPPED = "pipelines.settings.snmp_modules"


def _plain(oid: str) -> str:
    """An OID without leading dot and leading zeros."""
    if not re.fullmatch(r"\.?(?:0|1|2)(?:\.\d{1,10})+", oid):
        raise ValueError(f"has {oid!r}; an OID is numeric, like '1.3.6.1.2.1.1.3.0'")
    return ".".join(str(int(part)) for part in oid.lstrip(".").split("."))


def _listed(value: Any) -> Any:
    """A table of name and OID is a list of OIDs to us; the names are for the reader."""
    return list(value.values()) if isinstance(value, dict) else value


Oid = Annotated[str, AfterValidator(_plain)]
Oids = Annotated[list[Oid], BeforeValidator(_listed)]


class SnmpModule(Model):
    """``[snmp.modules.NAME]``: which objects are read, as numeric OIDs, and how often.

    ``sys_object_ids`` are the prefixes of sysObjectID of the devices that it fits.
    """

    description: str = ""
    get: Oids = []
    walk: Oids = []
    interval: PositiveDuration = timedelta(seconds=5)
    sys_object_ids: list[Oid] = []

    def fits(self, object_id: str) -> bool:
        """Whether it is meant for devices with this sysObjectID."""
        return any(f"{object_id}.".startswith(f"{prefix}.") for prefix in self.sys_object_ids)


@cache
def shipped_modules() -> dict[str, SnmpModule]:
    """The modules that come with Secchi, by name."""
    found = (file for file in files(_SHIPPED).iterdir() if file.name.endswith(".toml"))
    return {
        file.name.removesuffix(".toml"): SnmpModule.model_validate(tomllib.loads(file.read_text()))
        for file in sorted(found, key=lambda file: file.name)
    }


def laid_over(given: dict[str, SnmpModule]) -> dict[str, SnmpModule]:
    """The shipped modules and those given; one that names no OIDs changes what else it names of the shipped one.

    Raises:
        ValueError: a module names no OIDs, and there is none of its name to change.
    """
    modules = dict(shipped_modules())
    for name, module in given.items():
        if not module.get and not module.walk:
            if name not in modules:
                raise ValueError(f"modules.{name} must name OIDs in get or walk; shipped modules are {sorted(modules)}")
            changed = {key: getattr(module, key) for key in module.model_fields_set}
            module = modules[name].model_copy(update=changed)
        modules[name] = module
    return modules
