"""``secchi collect``."""

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.config import Config


def _checked(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]*", value):
        raise click.BadParameter(f"must be of letters, digits, '_' and '-', got {value!r}")
    return value


@click.command()
@click.option(
    "--instance",
    default="",
    metavar="NAME",
    callback=_checked,
    help="Collect beside another process: as this client, its part of the shared subscriptions ($share/...).",
)
@click.pass_obj
def command(settings: "Settings", instance: str) -> int:
    """Run the collectors in the foreground.

    They run until Ctrl-C or SIGTERM; at SIGHUP they take the configuration anew. What they receive is durable in
    landing before it is acknowledged; `secchi process` or `secchi up` carries it on.
    """
    from pipelines.collect.runner import run_collectors
    from pipelines.commands.check import check_secrets

    def load() -> "Config":
        config = settings.load()
        check_secrets(config)
        return config

    return run_collectors(load, instance)
