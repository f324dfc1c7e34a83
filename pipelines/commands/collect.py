"""``secchi collect``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.config import Config


@click.command()
@click.pass_obj
def command(settings: "Settings") -> int:
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

    return run_collectors(load)
