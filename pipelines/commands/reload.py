"""``secchi reload``."""

import os
import signal
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings


@click.command()
@click.pass_obj
def command(settings: "Settings") -> None:
    """Let the running collectors take the configuration anew.

    It is validated first. Collectors and targets that did not change go on undisturbed; the same is done by SIGHUP to
    the process of `secchi collect`.
    """
    from pipelines.collect.instances import instances
    from pipelines.commands.check import check_secrets
    from resources.errors import SecchiError

    config = settings.load()
    check_secrets(config)
    pids = [pid for instance in instances(config.lakehouse.path) if (pid := instance.pid())]
    if not pids:
        raise SecchiError(f"no collectors run for {config.lakehouse.path.absolute()}; 'secchi collect' starts them")
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
        click.echo(f"The collectors (pid {pid}) take the configuration anew.")
