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
    """Let what runs take the configuration anew.

    It is validated first. Collectors and targets that did not change go on undisturbed, as with SIGHUP to the process
    of `secchi collect`; tables, thresholds, checks and schedules are taken anew by `secchi up`.
    """
    from pipelines.collect.instances import instances
    from pipelines.commands.check import checked
    from pipelines.up import up_lock
    from resources.errors import SecchiError

    config, _ = checked(settings)
    collecting = [pid for instance in instances(config.lakehouse.path) if (pid := instance.lock.pid())]
    supervising = up_lock(config.lakehouse.path).pid()
    if not collecting and supervising is None:
        raise SecchiError(
            f"nothing runs for {config.lakehouse.path.absolute()}; 'secchi up' or 'secchi collect' starts it"
        )
    for pid in collecting:
        os.kill(pid, signal.SIGHUP)
        click.echo(f"The collectors (pid {pid}) take the configuration anew.")
    if supervising is not None:
        os.kill(supervising, signal.SIGUSR1)
        click.echo(f"secchi up (pid {supervising}) takes the tables, checks and schedules anew.")
