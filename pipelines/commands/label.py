"""``secchi label``."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pipelines.commands.trace import named_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pipelines.cli import Settings

TIME = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"])


@click.command()
@click.argument("kind", type=click.Choice(["confirmed", "false_alarm", "maintenance"]))
@click.argument("things", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--site", type=int, metavar="N", help="Site of the device.")
@click.option("--device", type=int, metavar="N", help="Device.")
@click.option("--sensor", type=int, metavar="N", help="One sensor; else all of the device.")
@click.option("--group", metavar="NAME", help="Things of this group instead of a device: those with these values.")
@click.option("--from", "low", type=TIME, required=True, metavar="TIME", help="Start, UTC: 2026-03-01T12:00.")
@click.option("--to", "high", type=TIME, required=True, metavar="TIME", help="End, UTC, exclusive.")
@click.option("--note", default="", metavar="TEXT", help="What was found.")
@click.pass_obj
def command(
    settings: "Settings",
    kind: str,
    things: tuple[str, ...],
    site: int | None,
    device: int | None,
    sensor: int | None,
    group: str | None,
    low: datetime,
    high: datetime,
    note: str,
) -> None:
    """Say what a span of time was: an anomaly, a false alarm, maintenance.

    The next training leaves out what is confirmed or maintenance, and puts no threshold below the score of a false
    alarm. NAME=VALUE are columns of a group, as in its table of scores: device_id=10.0.0.7:161 interface_id=3, or
    quantity=in_bits_per_second; what is not named may have any value.
    """
    from datetime import UTC

    from pipelines.labels import add_label

    if high <= low:
        raise click.BadParameter(f"must be later than --from {low:%Y-%m-%dT%H:%M:%S}", param_hint="'--to'")
    of = _of(things, {"site_id": site, "device_id": device, "sensor_id": sensor}, group)
    span = (low.replace(tzinfo=UTC), high.replace(tzinfo=UTC))
    label_id = add_label(settings.open(), kind, of, span, note, group)
    told = " ".join(f"{name}={value}" for name, value in of.items() if value is not None)
    click.echo(f"reference.labels: {kind} of {told} (label {label_id}); the next training takes it")


def _of(things: tuple[str, ...], device: "Mapping[str, int | None]", group: str | None) -> "Mapping[str, Any]":
    """What is labelled: a device by its numbers, or a group's things by their columns."""
    numbers = [name for name, value in device.items() if value is not None]
    if group and (numbers or not things):
        raise click.UsageError(f"--group {group} needs NAME=VALUE, and neither --site, --device nor --sensor")
    if not group and (things or not {"site_id", "device_id"} <= set(numbers)):
        raise click.UsageError("name a device by --site and --device, or things of a --group by NAME=VALUE")
    return dict(map(named_value, things)) if group else device
