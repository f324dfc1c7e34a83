"""``secchi up``."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the web UI.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of the web UI, which has no login of its own."
)
@click.pass_obj
def command(settings: "Settings", port: int, host: str) -> int:
    """Run everything until Ctrl-C.

    That is the collectors, Dagster's web UI and its daemon. A process that dies is started again. Logs are in the
    lakehouse, under logs/.
    """
    from pipelines.services import check, require_free, stages
    from pipelines.up import Supervisor

    config = settings.load()
    if code := check(settings.config_path):
        return code
    require_free(host, port, "choose another with --port or --host")
    lakehouse = config.lakehouse.path.resolve()
    with _sole_supervisor(lakehouse), Supervisor(lakehouse / "logs", _report) as supervisor:
        if not config.has_sources:
            _report("nothing is collected: the configuration has no [[mqtt]], [[snmp.targets]] or [snmp_traps]")
        for stage in stages(config, settings.config_path, host, port):
            supervisor.start(*stage)
        if not supervisor.is_stopping:
            _report(f"running; the UI is http://{host}:{port}, logs are in {lakehouse / 'logs'}, Ctrl-C ends it")
        supervisor.run()
        _report("stopping")
    return 0


def _report(line: str) -> None:
    click.echo(f"secchi: {line}", err=True)


@contextmanager
def _sole_supervisor(lakehouse: Path) -> Iterator[None]:
    """Holds the lock that says that ``up`` runs for a lakehouse."""
    from resources.errors import ConfigurationError

    path = lakehouse / "status" / "up.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"another 'secchi up' runs for {lakehouse} ({path} is locked)") from error
        yield
