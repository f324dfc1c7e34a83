"""``secchi up``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.config import Config
    from pipelines.up import Supervisor


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the web UI.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address of the web UI, which has no login of its own."
)
@click.pass_obj
def command(settings: "Settings", port: int, host: str) -> int:
    """Run everything until Ctrl-C.

    That is the collectors, Dagster's web UI and its daemon. A process that dies is started again. `secchi reload` lets
    it take the configuration anew. Logs are in the lakehouse, under logs/.
    """
    from pipelines.services import check, require_free, stages
    from pipelines.up import Supervisor, up_lock

    config = settings.load()
    if code := check(settings.config_path):
        return code
    lakehouse = config.lakehouse.path.resolve()
    with up_lock(lakehouse).held(f"another 'secchi up' runs for {lakehouse}"):
        require_free(host, port, "choose another with --port or --host")
        with Supervisor(lakehouse / "logs", _report) as supervisor:
            if not config.has_sources:
                _report("nothing is collected: the configuration has no [[mqtt]], [[snmp.targets]] or [snmp_traps]")
            for stage in stages(config, settings.config_path, host, port):
                supervisor.start(*stage)
            if not supervisor.is_stopping:
                _report(f"running; the UI is http://{host}:{port}, logs are in {lakehouse / 'logs'}, Ctrl-C ends it")
            while supervisor.run():
                config = _taken_over(supervisor, settings, config, (host, port))
            _report("stopping")
    return 0


def _taken_over(
    supervisor: "Supervisor", settings: "Settings", running: "Config", address: tuple[str, int]
) -> "Config":
    """Starts Dagster's processes again if the configuration has changed; the collectors take it by themselves."""
    from pipelines.services import check, stages
    from resources.errors import ConfigurationError

    try:
        config = settings.load()
    except ConfigurationError as error:
        _report(f"the configuration is not taken anew: {error}")
        return running
    if config == running or check(settings.config_path):
        return running
    if config.lakehouse != running.lakehouse:
        _report("a change of [lakehouse] takes effect when secchi up is started again")
        return running
    _report("the configuration has changed: tables, checks and schedules are taken anew")
    wanted = [
        [child for child in stage if child.name != "collect" or not running.has_sources]
        for stage in stages(config, settings.config_path, *address)
    ]
    supervisor.stop(*(child.name for stage in wanted for child in stage if child.name != "collect"))
    for stage in wanted:
        supervisor.start(*stage)
    return config


def _report(line: str) -> None:
    click.echo(f"secchi: {line}", err=True)
