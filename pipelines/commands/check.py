"""``secchi check``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from assets.table import Table
    from pipelines.cli import Settings
    from pipelines.config import Config
    from pipelines.settings.fields import Secret
    from pipelines.settings.mqtt import MqttBroker


@click.command()
@click.pass_obj
def command(settings: "Settings") -> None:
    """Validate configuration, tables and secrets.

    Connects to nothing. Prints what would be collected, and into which tables it would go; warns of stored tables that
    cannot become what is declared.
    """
    from pipelines.printing import counted, print_rows
    from pipelines.unread_topics import unread_filters

    config, tables = checked(settings)
    print_rows(
        ("protocol", "from", "what", "how", "credentials"),
        [*_brokers(config), *_targets(config), *_traps(config), *_references(config)],
        "table",
    )
    if not config.has_sources:
        click.echo("Nothing is collected: there is no [[mqtt]], [[snmp.targets]] or [snmp_traps].")
    yours = counted(sum(len(each.calculations) for each in config.declared), "calculation")
    limits = counted(sum(len(each.thresholds) for each in config.declared), "threshold")
    layers = sorted({table.layer for table in tables.values()})
    counts = (f"{sum(t.layer == layer for t in tables.values())} {layer}" for layer in layers)
    click.echo(f"{len(tables)} tables ({', '.join(counts)}), among them {yours} and {limits} of yours.")
    for identifier, mode in sorted(config.unknown_fields.items()):
        click.echo(f"Unknown fields of {identifier}: {mode}.")
    click.echo(f"The lakehouse is {config.lakehouse.path.absolute()}.")
    for unread in unread_filters(config, tables.values()):
        click.echo(
            f"secchi: warning: {config.source}: {unread}: no silver table reads these topics, their messages stay in "
            "bronze; tell what they hold in [[decode]]",
            err=True,
        )
    for each in config.reference:
        if each.file is not None and not each.file.exists():
            click.echo(f"secchi: warning: {config.source}: reference {each.name!r}: {each.file} is not there", err=True)
    for problem in _mismatches(config, tables):
        click.echo(f"secchi: warning: {problem}", err=True)
    click.echo("The configuration is valid.")


def checked(settings: "Settings") -> "tuple[Config, dict[str, Table]]":
    """The configuration and the tables that it declares.

    Raises:
        ConfigurationError: one line about the first mistake, a secret that is not there included.
    """
    from assets.catalog import load_tables
    from pipelines.context import check_names

    config = settings.load()
    tables = load_tables(declared=config.declared)
    check_names(config, tables)
    check_secrets(config)
    return config, tables


def _mismatches(config: "Config", tables: "Mapping[str, Table]") -> "Iterator[str]":
    """What keeps stored tables from becoming what is declared: each of them waits until that is mended."""
    from pipelines.context import with_evolved
    from resources.errors import SchemaMismatchError, SecchiError, reason_of
    from resources.lakehouse import Lakehouse

    if not (config.lakehouse.path / "catalog.db").exists():
        return
    try:
        lakehouse = Lakehouse(config.lakehouse.path)
        for table in with_evolved(lakehouse, tables).values():
            try:
                lakehouse.compare(table.stored)
            except SchemaMismatchError as error:
                yield str(error)
    except (SecchiError, OSError) as error:
        yield reason_of(error)


def check_secrets(config: "Config") -> None:
    """Every secret and certificate is there; the place of one that is missing is named.

    Raises:
        ConfigurationError: a variable or a file is not there.
    """
    from resources.errors import ConfigurationError

    places = {f"mqtt[{index}].password": broker.password for index, broker in enumerate(config.mqtt)}
    for name, auth in config.snmp.auths.items():
        places |= {f"snmp.auths.{name}.{option}": secret for option, secret in auth.secrets.items()}
    places |= {f"reference[{index}].password": each.password for index, each in enumerate(config.reference)}
    for place, secret in places.items():
        if secret is None:
            continue
        try:
            secret.reveal()
        except ConfigurationError as error:
            raise ConfigurationError(f"{config.source}: {place}: {error}") from error
    for index, broker in enumerate(config.mqtt):
        if broker.tls:
            try:
                broker.tls.reveal().context()
            except ConfigurationError as error:
                raise ConfigurationError(f"{config.source}: mqtt[{index}].tls.{error}") from error


def _brokers(config: "Config") -> list[tuple[str, ...]]:
    return [
        (
            "mqtt",
            f"{broker.name} ({broker.host}:{broker.port})",
            ", ".join(broker.topics),
            f"QoS {broker.qos}, MQTT {broker.protocol}{_secured(broker)}",
            f"{broker.username or 'anonymous'}{_place(broker.password)}",
        )
        for broker in config.mqtt
    ]


def _traps(config: "Config") -> list[tuple[str, ...]]:
    traps = config.snmp_traps
    if traps is None:
        return []
    sources = ", ".join(map(str, traps.allow)) or "anyone"
    return [("snmp traps", sources, f"{traps.host}:{traps.port}", "v1, v2c, v3", ", ".join(traps.users) or "no users")]


def _references(config: "Config") -> list[tuple[str, ...]]:
    return [
        (
            "reference",
            each.place,
            f"reference.{each.name}",
            each.rhythm,
            _place(each.password).removeprefix(", "),
        )
        for each in config.reference
    ]


def _secured(broker: "MqttBroker") -> str:
    parts = [*(["WebSocket"] if broker.transport == "websocket" else []), *(["TLS"] if broker.tls else [])]
    return "".join(f", {part}" for part in parts)


def _targets(config: "Config") -> list[tuple[str, ...]]:
    from pipelines.settings.snmp_module import AUTO

    rows: list[tuple[str, ...]] = []
    for target in config.snmp.targets:
        auth = config.snmp.auths[target.auth]
        modules = [config.snmp.every_module[name] for name in target.modules if name != AUTO]
        intervals = [f"{module.interval.total_seconds():g} s" for module in modules]
        credentials = f"v{auth.version} {target.auth}{''.join(map(_place, auth.secrets.values()))}"
        how = ", ".join(intervals) or "by its sysObjectID"
        rows.append(("snmp", target.device_id, ", ".join(target.modules), how, credentials))
    return rows


def _place(secret: "Secret | None") -> str:
    if secret is None:
        return ""
    return f", from variable {secret.env}" if secret.env is not None else f", from file {secret.file}"
