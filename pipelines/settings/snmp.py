"""``[snmp]``: credentials, what is read, and from which agents."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.settings.fields import Host, Model, Name, Port, Secret
from resources.durations import PositiveDuration


class SnmpAuth(Model):
    """``[snmp.auths.NAME]``: credentials, apart from what is polled."""

    version: Literal["1", "2c"] = "2c"
    community: Secret | None = None


class SnmpModule(Model):
    """``[snmp.modules.NAME]``: which objects are read, as numeric OIDs."""

    get: list[str] = []
    walk: list[str] = []
    interval: PositiveDuration = timedelta(seconds=5)

    @model_validator(mode="after")
    def _numeric(self) -> "SnmpModule":
        for oid in (*self.get, *self.walk):
            if not re.fullmatch(r"\.?[0-2](\.\d+)+", oid):
                raise ValueError(f"has {oid!r}; an OID is numeric, like '1.3.6.1.2.1.1.3.0'")
        if not self.get and not self.walk:
            raise ValueError("must name OIDs in get or walk")
        return self


class SnmpTarget(Model):
    """``[[snmp.targets]]``: one agent and what to read from it."""

    host: Host
    port: Port = 161
    auth: Name = "public"
    modules: Annotated[list[Name], Field(min_length=1)]
    timeout: PositiveDuration = timedelta(seconds=2)
    retries: Annotated[int, Field(ge=0, le=10)] = 1

    @property
    def device_id(self) -> str:
        """``host:port``, the device's identity in every table."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SnmpConfig(Model):
    """``[snmp]``."""

    auths: dict[Name, SnmpAuth] = {"public": SnmpAuth()}
    modules: dict[Name, SnmpModule] = {}
    targets: list[SnmpTarget] = []

    @model_validator(mode="after")
    def _targets_differ(self) -> "SnmpConfig":
        known: dict[str, int] = {}
        for index, target in enumerate(self.targets):
            first = known.setdefault(target.device_id.lower(), index)
            if first != index:
                raise ValueError(
                    f"targets[{index}] is {target.device_id}, as targets[{first}] is; name all its modules in one"
                )
        return self

    @model_validator(mode="after")
    def _names_resolve(self) -> "SnmpConfig":
        for index, target in enumerate(self.targets):
            if target.auth not in self.auths:
                raise ValueError(f"targets[{index}].auth must be one of {sorted(self.auths)}, got {target.auth!r}")
            for module in target.modules:
                if module not in self.modules:
                    raise ValueError(f"targets[{index}].modules must be of {sorted(self.modules)}, got {module!r}")
        return self
