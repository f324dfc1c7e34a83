"""``secchi label``."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings

TIME = click.DateTime(["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"])


@click.command()
@click.argument("kind", type=click.Choice(["confirmed", "false_alarm", "maintenance"]))
@click.option("--site", type=int, required=True, metavar="N", help="Site of the device.")
@click.option("--device", type=int, required=True, metavar="N", help="Device.")
@click.option("--sensor", type=int, metavar="N", help="One sensor; else all of the device.")
@click.option("--from", "low", type=TIME, required=True, metavar="TIME", help="Start, UTC: 2026-03-01T12:00.")
@click.option("--to", "high", type=TIME, required=True, metavar="TIME", help="End, UTC, exclusive.")
@click.option("--note", default="", metavar="TEXT", help="What was found.")
@click.pass_obj
def command(
    settings: "Settings",
    kind: str,
    site: int,
    device: int,
    sensor: int | None,
    low: datetime,
    high: datetime,
    note: str,
) -> None:
    """Say what a span of time was: an anomaly, a false alarm, maintenance.

    The next training leaves out what is confirmed or maintenance, and puts no threshold below the score of a false
    alarm.
    """
    from datetime import UTC

    from pipelines.labels import add_label

    if high <= low:
        raise click.BadParameter(f"must be later than --from {low:%Y-%m-%dT%H:%M:%S}", param_hint="'--to'")
    context = settings.open()
    span = (low.replace(tzinfo=UTC), high.replace(tzinfo=UTC))
    label_id = add_label(context, kind, (site, device), sensor, span, note)
    click.echo(
        f"reference.labels: {kind} of site {site}, device {device} (label {label_id}); the next training takes it"
    )
