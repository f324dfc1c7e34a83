"""The one model of secchi.toml: validated whole before anything connects."""

import os
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from resources.durations import Duration, PositiveDuration
from resources.errors import ConfigurationError

CONFIG_VARIABLE = "SECCHI_CONFIG"
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


class Model(BaseModel):
    """Base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(Model):
    """A secret's place, never its value: ``{env = "NAME"}`` or ``{file = "path"}``."""

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_plain_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('must not stand in the file; write {env = "NAME"} or {file = "path"}')
        return value

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
                raise ConfigurationError(f"secret: environment variable {self.env} is not set")
            return value
        assert self.file is not None
        try:
            return self.file.read_text().rstrip("\n")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"secret: cannot read {self.file} as text: {error}") from error


class LakehouseConfig(Model):
    """``[lakehouse]``: where everything is kept. Relative paths are relative to secchi.toml."""

    path: Path = Path("data")


class LandingConfig(Model):
    """``[landing]``: sealing and the size cap of landing (per collector stream)."""

    commit_interval: PositiveDuration = timedelta(milliseconds=20)
    segment_bytes: Size = 16 * 2**20
    segment_age: PositiveDuration = timedelta(seconds=1)
    capacity_bytes: Size = 10 * 2**30


def _topic_filter(value: str) -> str:
    """Checks a topic filter (MQTT 3.1.1 section 4.7)."""
    levels = value.split("/")
    if not value or "\0" in value or len(value.encode()) > 65_535:
        raise ValueError("must be a topic filter of 1 to 65,535 bytes without NUL")
    if "#" in value and (levels[-1] != "#" or value.count("#") > 1):
        raise ValueError("has '#' that is not the whole last level of the filter")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError("has '+' that is not a whole level of the filter")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", value) or "://" in value:
        raise ValueError("must be a host name or an address, without scheme and port")
    return value


Host = Annotated[str, AfterValidator(_host)]
TopicFilter = Annotated[str, AfterValidator(_topic_filter)]


class MqttBroker(Model):
    """``[[mqtt]]``: one broker."""

    name: Name
    host: Host = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    topics: Annotated[list[TopicFilter], Field(min_length=1)]
    qos: Literal[0, 1, 2] = 1
    username: str | None = None
    password: Secret | None = None
    client_id: Name | None = None
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    keepalive: PositiveDuration = timedelta(seconds=60)
    reconnect_min: PositiveDuration = timedelta(milliseconds=500)
    reconnect_max: PositiveDuration = timedelta(seconds=60)
    max_in_flight: Annotated[int, Field(ge=1, le=65535)] = 1000


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
    port: Annotated[int, Field(ge=1, le=65535)] = 161
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
    def _names_resolve(self) -> "SnmpConfig":
        for index, target in enumerate(self.targets):
            if target.auth not in self.auths:
                raise ValueError(f"targets[{index}].auth must be one of {sorted(self.auths)}, got {target.auth!r}")
            for module in target.modules:
                if module not in self.modules:
                    raise ValueError(f"targets[{index}].modules must be of {sorted(self.modules)}, got {module!r}")
        return self


def _with_zone(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


class TimeConfig(Model):
    """``[time]``: bounds of event time, and when a sender counts as idle. A time without an offset is UTC."""

    skew: Duration = timedelta(minutes=5)
    earliest: Annotated[datetime, AfterValidator(_with_zone)] = datetime(2000, 1, 1, tzinfo=UTC)
    idle: Duration = timedelta(minutes=1)


class MicroBatchConfig(Model):
    """``[micro_batch]``: how long a run carries micro-batches, and how large one may be."""

    idle: Duration = timedelta(seconds=10)
    duration: Duration = timedelta(minutes=5)
    pause: Duration = timedelta(milliseconds=500)
    report_every: PositiveDuration = timedelta(seconds=30)
    max_bytes: Size = 64 * 2**20


class ModelConfig(Model):
    """``[ml]``: training of the anomaly model."""

    min_windows: Annotated[int, Field(ge=10)] = 500
    max_windows: Annotated[int, Field(ge=10)] = 200_000
    trees: Annotated[int, Field(ge=1)] = 100
    seed: int = 0
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] = 0.001
    schedule: str = "0 3 * * *"


class MaintenanceConfig(Model):
    """``[maintenance]``: compaction, expiry, sweep and retention."""

    schedule: str = "*/10 * * * *"
    keep_snapshots: Annotated[int, Field(ge=1)] = 20
    keep_snapshots_for: Duration = timedelta(minutes=10)
    sweep_after: Duration = timedelta(hours=1)
    compact_files: Annotated[int, Field(ge=2)] = 16
    retention: dict[str, Duration] = {}
    keep_runs_for: Duration = timedelta(days=7)


class QualityConfig(Model):
    """``[quality]``: the scheduled Great Expectations suites."""

    schedule: str = "*/30 * * * *"
    window: Duration = timedelta(hours=1)


class Config(Model):
    """secchi.toml."""

    lakehouse: LakehouseConfig = LakehouseConfig()
    landing: LandingConfig = LandingConfig()
    mqtt: list[MqttBroker] = []
    snmp: SnmpConfig = SnmpConfig()
    time: TimeConfig = TimeConfig()
    micro_batch: MicroBatchConfig = MicroBatchConfig()
    ml: ModelConfig = ModelConfig()
    maintenance: MaintenanceConfig = MaintenanceConfig()
    quality: QualityConfig = QualityConfig()
    calculation: list[dict[str, Any]] = []

    @model_validator(mode="after")
    def _unique_brokers(self) -> "Config":
        names = [broker.name for broker in self.mqtt]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"mqtt: the name {twice[0]!r} stands twice; each broker has a name of its own")
        return self

    @property
    def landing_path(self) -> Path:
        """Where collectors write."""
        return self.lakehouse.path / "landing"


def _underscored(value: Any) -> Any:
    """Accepts ``segment-bytes`` for ``segment_bytes`` in option names."""
    if isinstance(value, dict):
        return {k.replace("-", "_") if isinstance(k, str) else k: _underscored(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_underscored(item) for item in value]
    return value


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place or "the file"


def _mistake(source: str, error: ValidationError) -> str:
    """One line for the first mistake: file, key, what is wrong, the value."""
    # An unknown key is often why another one is missing.
    first = min(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    text = first["msg"].removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    if first["type"] == "extra_forbidden":
        text = "is not a known key"
    elif first["type"] == "missing":
        text = "is missing"
    elif not isinstance(first["input"], dict | list) and "got" not in text and first["type"] != "value_error":
        text = f"{text}, got {first['input']!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{source}: {_place(first['loc'])} {text}{more}"


def parse_config(document: dict[str, Any], source: str = "secchi.toml") -> Config:
    """Validates a parsed TOML document.

    Raises:
        ConfigurationError: one line naming file, key, value and what is accepted.
    """
    calculations = document.get("calculation", [])
    rest = {k: v for k, v in document.items() if k != "calculation"}
    try:
        return Config.model_validate({**_underscored(rest), "calculation": calculations})
    except ValidationError as error:
        raise ConfigurationError(_mistake(source, error)) from error


def load_config(path: Path | None = None) -> Config:
    """Reads ``path``, or the file named by SECCHI_CONFIG, or secchi.toml here if there is one, else the defaults.

    Raises:
        ConfigurationError: the file is named but not there, is no TOML, or has a mistake.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    file = named or Path("secchi.toml")
    if named is None and not file.exists():
        return Config()
    try:
        document = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(
            f"{file}: {error.strerror}; name the file with --config or {CONFIG_VARIABLE}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {error}") from error
    config = parse_config(document, str(file))
    base = file.resolve().parent / config.lakehouse.path
    return config.model_copy(update={"lakehouse": LakehouseConfig(path=base)})
