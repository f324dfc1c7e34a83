"""``[snmp]``: credentials, what is read, and from which agents."""

from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipelines.settings.fields import Host, Model, Name, Port, Secret
from pipelines.settings.snmp_module import AUTO, SnmpModule, laid_over
from resources.durations import PositiveDuration
from resources.snmp_usm import AuthProtocol, PrivProtocol, UsmUser


def _protocol(value: Any) -> Any:
    """Accepts the spellings that users bring: ``sha256``, ``SHA1``, ``AES``, ``aes256c``."""
    if not isinstance(value, str):
        return value
    plain = value.upper().replace("-", "").replace("_", "")
    if plain in ("SHA1", "AES"):
        return {"SHA1": "SHA", "AES": "AES-128"}[plain]
    for family in ("SHA", "AES"):
        if plain.startswith(family) and len(plain) > len(family):
            size = plain.removeprefix(family)
            return f"{family}-{size.removesuffix('C')}{'-C' if size.endswith('C') else ''}"
    return plain


class SnmpAuth(Model):
    """``[snmp.auths.NAME]``: credentials, apart from what is polled: a community (v1, v2c) or a user (v3)."""

    version: Literal["1", "2c", "3"] = "2c"
    community: Secret | None = None
    user: str | None = None
    auth_protocol: Annotated[AuthProtocol | None, BeforeValidator(_protocol)] = None
    auth_password: Secret | None = None
    priv_protocol: Annotated[PrivProtocol | None, BeforeValidator(_protocol)] = None
    priv_password: Secret | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "SnmpAuth":
        if self.version != "3":
            given = [name for name in type(self).model_fields if name.startswith(("user", "auth_", "priv_"))]
            if named := [name for name in given if getattr(self, name) is not None]:
                raise ValueError(f"has {named[0]}, which is of version '3', and version {self.version!r}")
            return self
        if self.community or not self.user:
            raise ValueError("has version '3', which takes user, and no community")
        for kind in ("auth", "priv"):
            if (getattr(self, f"{kind}_protocol") is None) != (getattr(self, f"{kind}_password") is None):
                raise ValueError(f"must have both {kind}_protocol and {kind}_password, or neither")
        if self.priv_protocol and not self.auth_protocol:
            raise ValueError("has priv_protocol without auth_protocol; what is encrypted must be signed too")
        return self

    def usm_user(self) -> UsmUser | None:
        """The user with its passwords; None for a community.

        Raises:
            ConfigurationError: a password's variable or file is not there.
        """
        if not self.user:
            return None
        auth, priv = (each.reveal() if each else "" for each in (self.auth_password, self.priv_password))
        return UsmUser(self.user, self.auth_protocol, auth, self.priv_protocol, priv)

    @property
    def secrets(self) -> dict[str, Secret]:
        """Its secrets by the name of their option."""
        found = {name: getattr(self, name) for name in ("community", "auth_password", "priv_password")}
        return {name: secret for name, secret in found.items() if secret}


class SnmpTarget(Model):
    """``[[snmp.targets]]``: one agent and what to read from it; ``auto`` reads what fits its sysObjectID."""

    host: Host
    port: Port = 161
    auth: Name = "public"
    modules: Annotated[list[Name], Field(min_length=1)] = [AUTO]
    context: str = ""
    timeout: PositiveDuration = timedelta(seconds=2)
    retries: Annotated[int, Field(ge=0, le=10)] = 1
    max_repetitions: Annotated[int, Field(ge=0, le=1000)] = 40

    @property
    def device_id(self) -> str:
        """The device's identity in every table: ``host:port``, or ``host:port@context`` for each context of it."""
        address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{address}@{self.context}" if self.context else address


class SnmpConfig(Model):
    """``[snmp]``. ``target_files`` are globs of .toml and .csv files with more targets, relative to secchi.toml."""

    auths: dict[Name, SnmpAuth] = {"public": SnmpAuth()}
    modules: dict[Name, SnmpModule] = {}
    targets: list[SnmpTarget] = []
    target_files: list[str] = []
    backoff: PositiveDuration = timedelta(minutes=1)

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
        laid_over(self.modules)
        self.check_targets([(f"targets[{index}]", target) for index, target in enumerate(self.targets)])
        return self

    @cached_property
    def every_module(self) -> dict[str, SnmpModule]:
        """The shipped modules, with those of the configuration laid over."""
        return laid_over(self.modules)

    def check_targets(self, targets: list[tuple[str, SnmpTarget]]) -> None:
        """Checks that what targets name is there, and that each is named once; a target comes with its place.

        Raises:
            ValueError: the first mistake.
        """
        seen: dict[str, str] = {}
        for place, target in targets:
            if target.auth not in self.auths:
                given = f"got {target.auth!r}" if "auth" in target.model_fields_set else "got none"
                raise ValueError(f"{place}.auth must be one of {sorted(self.auths)}, {given}")
            if target.context and self.auths[target.auth].version != "3":
                raise ValueError(f"{place}.context is of version '3', and the auth {target.auth!r} is not")
            for module in target.modules:
                if module != AUTO and module not in self.every_module:
                    accepted = sorted([AUTO, *self.every_module])
                    raise ValueError(f"{place}.modules must be of {accepted}, got {module!r}")
            if target.device_id in seen:
                raise ValueError(
                    f"{place} is {target.device_id}, as {seen[target.device_id]} is; name all modules in one"
                )
            seen[target.device_id] = place
