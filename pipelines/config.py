"""The one model of secchi.toml: validated whole before anything connects."""

import os
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from assets.declarations import Declarations, UnknownFields
from ml.groups import Group
from pipelines.settings.cron import Cron
from pipelines.settings.decode import DecodeConfig
from pipelines.settings.fields import Model, Size
from pipelines.settings.labels import LabelFile
from pipelines.settings.ml import ModelConfig
from pipelines.settings.mqtt import MqttBroker
from pipelines.settings.reference import ReferenceConfig
from pipelines.settings.snmp import SnmpConfig
from pipelines.settings.snmp_targets import with_target_files
from pipelines.settings.snmp_traps import SnmpTraps
from resources.durations import Duration, PositiveDuration
from resources.errors import ConfigurationError
from resources.snmp_usm import UsmUser
from resources.strict_model import first_mistake, shown

CONFIG_VARIABLE = "SECCHI_CONFIG"


class LakehouseConfig(Model):
    """``[lakehouse]``: where everything is kept. Relative paths are relative to secchi.toml."""

    path: Path = Path("data")


class LandingConfig(Model):
    """``[landing]``: sealing and the size cap of landing (per collector stream)."""

    commit_interval: PositiveDuration = timedelta(milliseconds=20)
    segment_bytes: Size = 16 * 2**20
    segment_age: PositiveDuration = timedelta(seconds=1)
    capacity_bytes: Size = 10 * 2**30


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


def _by_table(value: Any) -> Any:
    if not isinstance(value, dict):
        example = '{"bronze.mqtt_messages" = "30d", "silver.sensor_readings" = "365d"}'
        raise ValueError(f"must tell how long of each table: retention = {example}, got {shown(value)}")
    return value


class MaintenanceConfig(Model):
    """``[maintenance]``: compaction, expiry, sweep and retention."""

    schedule: Cron = "*/10 * * * *"
    keep_snapshots: Annotated[int, Field(ge=1)] = 20
    keep_snapshots_for: Duration = timedelta(minutes=10)
    sweep_after: Duration = timedelta(hours=1)
    compact_files: Annotated[int, Field(ge=2)] = 16
    retention: Annotated[dict[str, Duration], BeforeValidator(_by_table)] = {}
    keep_runs_for: Duration = timedelta(days=7)


class QualityConfig(Model):
    """``[quality]``: the scheduled Great Expectations suites."""

    schedule: Cron = "*/30 * * * *"
    window: Duration = timedelta(hours=1)


class Config(Model):
    """secchi.toml."""

    lakehouse: LakehouseConfig = LakehouseConfig()
    landing: LandingConfig = LandingConfig()
    mqtt: list[MqttBroker] = []
    decode: list[DecodeConfig] = []
    fault_labels: list[LabelFile] = []
    reference: list[ReferenceConfig] = []
    snmp: SnmpConfig = SnmpConfig()
    snmp_traps: SnmpTraps | None = None
    time: TimeConfig = TimeConfig()
    micro_batch: MicroBatchConfig = MicroBatchConfig()
    ml: ModelConfig = ModelConfig()
    maintenance: MaintenanceConfig = MaintenanceConfig()
    quality: QualityConfig = QualityConfig()
    unknown_fields: dict[str, UnknownFields] = {}
    include: list[str] = []
    calculation: list[dict[str, Any]] = []
    threshold: list[dict[str, Any]] = []
    _source: str = PrivateAttr("secchi.toml")
    _declared: tuple[Declarations, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _unique_brokers(self) -> "Config":
        names = [broker.name for broker in self.mqtt]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"names two brokers {twice[0]!r}; each [[mqtt]] has a name of its own")
        clients = [(broker.host, broker.port, broker.client_id) for broker in self.mqtt if broker.client_id]
        if same := sorted({c for c in clients if clients.count(c) > 1}):
            host, port, client_id = same[0]
            raise ValueError(f"has client_id {client_id!r} twice for {host}:{port}; one would end the other")
        return self

    @model_validator(mode="after")
    def _trap_users_resolve(self) -> "Config":
        known = sorted(name for name, auth in self.snmp.auths.items() if auth.user)
        for index, name in enumerate(self.snmp_traps.users if self.snmp_traps else ()):
            if name not in known:
                raise ValueError(
                    f"snmp_traps.users[{index}] must be one of the [snmp.auths] of version '3', {known}, got {name!r}"
                )
        return self

    @property
    def has_sources(self) -> bool:
        """Whether anything is to be collected."""
        return bool(self.mqtt or self.snmp.targets or self.snmp_traps)

    @property
    def trap_users(self) -> dict[str, list[UsmUser]]:
        """The users whose v3 traps and INFORMs are read, by name.

        Raises:
            ConfigurationError: a password's variable or file is not there.
        """
        found: dict[str, list[UsmUser]] = {}
        for name in self.snmp_traps.users if self.snmp_traps else ():
            if user := self.snmp.auths[name].usm_user():
                found.setdefault(user.name, []).append(user)
        return found

    @property
    def source(self) -> str:
        """The file that it was read from; starts the messages about its mistakes."""
        return self._source

    @property
    def declared(self) -> tuple[Declarations, ...]:
        """What secchi.toml and the files that it includes declare."""
        return self._declared or (self._own,)

    @property
    def _own(self) -> Declarations:
        references = tuple(each.declaration for each in self.reference)
        groups = tuple(
            Group(one.name, one.source, tuple(one.by), tuple(one.values), tuple(one.categories))
            for one in self.ml.group
        )
        return Declarations(self.source, tuple(self.calculation), references, tuple(self.threshold), groups)

    @property
    def landing_path(self) -> Path:
        """Where collectors write."""
        return self.lakehouse.path / "landing"


def parse_config(document: dict[str, Any], source: str = "secchi.toml", folder: Path | None = None) -> Config:
    """Validates a parsed TOML document; files of secrets are relative to ``folder``, or to where the process stands.

    Raises:
        ConfigurationError: one line naming file, key, value and what is accepted.
    """
    try:
        config = Config.model_validate(document, context={"folder": folder})
    except ValidationError as error:
        raise ConfigurationError(f"{source}: {first_mistake(error)}") from error
    config._source = source
    config._declared = (config._own,)
    return config


class _Included(Model):
    """A file that ``include`` names: declarations alone."""

    calculation: list[dict[str, Any]] = []
    threshold: list[dict[str, Any]] = []


def _read_toml(file: Path, way_out: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; {way_out}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: {error}") from error


def _included(config: Config, file: Path) -> list[Declarations]:
    """The declarations of the files that ``include`` names, relative to ``file``; the same file once."""
    found: dict[Path, Declarations] = {}
    for i, pattern in enumerate(config.include):
        paths = [] if Path(pattern).is_absolute() else sorted(file.parent.glob(pattern))
        if not paths:
            raise ConfigurationError(f"{file}: include[{i}] must match a file, relative to this one, got {pattern!r}")
        for path in paths:
            document = _read_toml(path, f"it is included by {file}")
            try:
                parsed = _Included.model_validate(document)
            except ValidationError as error:
                raise ConfigurationError(f"{path}: {first_mistake(error)}; it is included by {file}") from error
            thresholds = tuple(parsed.threshold)
            declared = Declarations(str(path), tuple(parsed.calculation), thresholds=thresholds)
            found.setdefault(path.resolve(), declared)
    return list(found.values())


def load_config(path: Path | None = None) -> Config:
    """Reads ``path``, or the file named by SECCHI_CONFIG, or secchi.toml here if there is one, else the defaults.

    Raises:
        ConfigurationError: the file is named but not there, is no TOML, or has a mistake.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    file = named or Path("secchi.toml")
    if named is None and not file.exists():
        _check_place("the defaults", Config().lakehouse.path)
        return Config()
    document = _read_toml(file, f"name the file with --config or {CONFIG_VARIABLE}")
    folder = file.resolve().parent
    config = parse_config(document, str(file), folder)
    config._declared += tuple(_included(config, file))
    lakehouse = LakehouseConfig(path=folder / config.lakehouse.path)
    snmp = with_target_files(config.snmp, folder, str(file))
    _check_place(str(file), lakehouse.path)
    return config.model_copy(update={"lakehouse": lakehouse, "snmp": snmp})


def _check_place(source: str, lakehouse: Path) -> None:
    """The lakehouse is a directory that can be written, or can be made.

    Raises:
        ConfigurationError: it is not.
    """
    there = next(path for path in (lakehouse.absolute(), *lakehouse.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigurationError(f"{source}: lakehouse.path must be a directory, got {lakehouse}, but {there} is none")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{source}: lakehouse.path must be a place that can be written, {there} cannot")
