"""``secchi simulate``."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import threading

    from pipelines.simulate.sender import Target

_PORT = 1883


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from resources.durations import parse_duration

        try:
            found = parse_duration(float(value) if str(value).replace(".", "", 1).isdigit() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        assert isinstance(found, timedelta)
        return found


class _Numbers(click.ParamType[tuple[int, ...]]):
    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"must be numbers with commas between, got {value!r}", param, ctx)


class _Address(click.ParamType[tuple[str, str, int]]):
    name = "broker"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, int]:
        if isinstance(value, tuple):
            return value
        region, _, address = value.rpartition("=")
        host, colon, port = address.rpartition(":")
        if (colon and not port.isdecimal()) or not (host if colon else port):
            self.fail(f"must be HOST, HOST:PORT or REGION=HOST:PORT, got {value!r}", param, ctx)
        return (region, host, int(port)) if colon else (region, port, _PORT)


class _OfRegion(click.ParamType[tuple[str, str]]):
    name = "of_region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        region, _, text = value.rpartition("=")
        return region, text


_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_USERNAME = click.option("--username", metavar="NAME", help="User name at the broker.")
_PASSWORD = click.option("--password-env", metavar="VARIABLE", help="Environment variable that holds the password.")
_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other values.")


@click.group()
def command() -> None:
    """Send what plants, machines and SNMP agents send.

    For trying Secchi out, for load tests and for models: senders that are no part of the lakehouse. They print one JSON
    line a second and a summary, and end at Ctrl-C or SIGTERM.
    """


@command.command()
@click.option(
    "--broker",
    "brokers",
    type=_Address(),
    multiple=True,
    metavar="[REGION=]HOST[:PORT]",
    help="Broker to publish to; 127.0.0.1:1883. With a region only that region's readings: give one for each.",
)
@click.option(
    "--username",
    "usernames",
    type=_OfRegion(),
    multiple=True,
    metavar="[REGION=]NAME",
    help="User name at the brokers; with a region at that region's.",
)
@click.option(
    "--password-env",
    "password_envs",
    type=_OfRegion(),
    multiple=True,
    metavar="[REGION=]VARIABLE",
    help="Environment variable that holds the password.",
)
@click.option("--qos", type=click.IntRange(0, 2), default=1, show_default=True, help="Quality of service.")
@click.option(
    "--catalogue",
    type=click.Path(exists=False, path_type=Path),
    metavar="FILE",
    help="Site catalogue, a JSON list; else the packaged one of sites 101 to 114 in five regions.",
)
@click.option("--sites", type=_Numbers(), metavar="IDS", help="Only these sites, e.g. 101,102; else all.")
@click.option("--rate", type=_ABOVE_ZERO, default=200.0, show_default=True, help="Live readings a second.")
@click.option("--history", type=_Duration(), default="6h", show_default=True, help="How far back the history goes.")
@click.option(
    "--start",
    metavar="TIME",
    help="When the history starts instead, e.g. 2026-01-01T00:00 (UTC); 'catalogue' takes each site's own start.",
)
@click.option(
    "--history-interval", type=_Duration(), default="30s", show_default=True, help="Step of the history of a sensor."
)
@click.option("--duration", type=float, metavar="SECONDS", help="Length of the live phase; else until Ctrl-C.")
@click.option("--sent", type=click.Path(path_type=Path), metavar="FILE", help="CSV: each acknowledged message.")
@click.option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE", help="CSV: when which device had which fault."
)
@click.option(
    "--site-list", type=click.Path(path_type=Path), metavar="FILE", help="CSV: the sites, where they are, their score."
)
@click.option(
    "--malformed-every",
    type=click.IntRange(min=0),
    default=5000,
    show_default=True,
    help="Every so many live readings one that no reader can use; 0 for none.",
)
@_SEED
def factory(
    brokers: tuple[tuple[str, str, int], ...],
    usernames: tuple[tuple[str, str], ...],
    password_envs: tuple[tuple[str, str], ...],
    history_interval: timedelta,
    **given: Any,
) -> None:
    """Send the readings of factories over MQTT.

    First their history as fast as the broker takes it, then the present. Sites keep their operating hours; each day,
    and in each minute of the live phase, devices have faults: drift, spikes, stuck, noise, drop_out.
    """
    from pipelines.simulate.factory import Options, run

    if history_interval < timedelta(milliseconds=1):
        raise click.BadParameter(f"must be at least 1ms, got {history_interval}", param_hint="'--history-interval'")
    options = {name: value for name, value in given.items() if value is not None}
    options["start"] = _start(options.pop("start", None))
    addresses = {"": ("127.0.0.1", _PORT)} | {region: (host, port) for region, host, port in brokers}
    names = _of_regions("--username", usernames, addresses)
    variables = _of_regions("--password-env", password_envs, addresses)
    qos = options.pop("qos")
    targets = {region: _target(to, qos, names[region], variables[region]) for region, to in addresses.items()}
    everywhere = targets.pop("")
    run(Options(everywhere, targets, history_interval=history_interval, **options), _stopped())


@command.command()
@click.option("--broker", type=_Address(), default="127.0.0.1:1883", show_default=True, metavar="HOST[:PORT]")
@_USERNAME
@_PASSWORD
@click.option("--qos", type=click.IntRange(0, 2), default=2, show_default=True, help="Quality of service.")
@click.option("--topic", default="machine/states", show_default=True, help="Topic to publish on.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Recording to replay: each line a payload, as it stands there; else states are made up.",
)
@click.option("--messages", type=click.IntRange(min=1), help="Most messages; made-up states end at 1402232.")
@click.option("--rate", type=_ABOVE_ZERO, help="Messages a second; else as fast as the broker takes them.")
@_SEED
def machine(
    broker: tuple[str, str, int], qos: int, username: str | None, password_env: str | None, **given: Any
) -> None:
    """Send machine states over MQTT: a recording, or made up."""
    from pipelines.simulate.machine import Options, run

    run(Options(_target(broker[1:], qos, username, password_env), **given), _stopped())


@command.command()
@click.option(
    "--ports",
    type=_Numbers(),
    default="20161,20162,20163,20164",
    show_default=True,
    help="UDP ports of the switch, the UPS, the PDU and the server.",
)
@click.option(
    "--answered", type=click.Path(path_type=Path), metavar="FILE", help="CSV: each variable binding answered."
)
@_SEED
def snmp(ports: tuple[int, ...], answered: Path | None, seed: int) -> None:
    """Answer as a switch, a UPS, a PDU and a Linux server.

    SNMP v2c, community public, on 127.0.0.1. The switch reboots every 45 s, the server answers slowly.
    """
    from pipelines.simulate.snmp_agents import run

    run(ports, answered, seed)


def _of_regions(
    option: str, given: tuple[tuple[str, str], ...], addresses: dict[str, tuple[str, int]]
) -> dict[str, str | None]:
    """What an option says for each broker; without a region it holds for all that it does not name."""
    found = dict(given)
    if unknown := sorted(found.keys() - addresses.keys()):
        raise click.BadParameter(f"no --broker has the region {unknown[0]!r}", param_hint=f"'{option}'")
    return {region: found.get(region, found.get("")) for region in addresses}


def _target(address: tuple[str, int], qos: Any, username: str | None, password_env: str | None) -> "Target":
    import os

    from pipelines.simulate.sender import Target

    if password_env is not None and password_env not in os.environ:
        raise click.BadParameter(f"environment variable {password_env} is not set", param_hint="'--password-env'")
    return Target(*address, username, os.environ[password_env] if password_env else None, qos)


def _start(text: str | None) -> Any:
    from datetime import datetime

    if text is None or text == "catalogue":
        return text
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"must be a time like 2026-01-01T00:00, or 'catalogue', got {text!r}", param_hint="'--start'"
        ) from error


def _stopped() -> "threading.Event":
    """Set once a signal asks for the end."""
    import signal
    import threading

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stopped.set())
    return stopped
