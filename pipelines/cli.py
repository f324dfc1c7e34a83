"""The command line. A command is a file of ``pipelines/commands``; its ``command`` is found by the file's name.

Modules of commands import click at their top and everything else inside, so that ``secchi --help`` answers at once.
"""

import importlib
import logging
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines import commands
from resources.errors import ConfigurationError, SecchiError, reason_of
from resources.terminal import printable

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.context import Context

_OURS = ("pipelines", "assets", "resources", "ml", "data_quality")
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@dataclass(frozen=True)
class Settings:
    """The global options."""

    config_path: Path | None = None
    is_debug: bool = False
    is_verbose: bool = False

    def load(self) -> "Config":
        """Reads the configuration.

        Raises:
            ConfigurationError: the file is named but missing, or has a mistake.
        """
        from pipelines.config import load_config

        return load_config(self.config_path)

    def open(self, *, must_exist: bool = True) -> "Context":
        """Opens the lakehouse; a new one is made only where ``must_exist`` is false.

        Raises:
            ConfigurationError: see ``load``; also a mistake in a declaration.
            SecchiError: there is no lakehouse.
        """
        from pipelines.context import open_context

        config = self.load()
        path = config.lakehouse.path
        if must_exist and not (path / "catalog.db").exists():
            raise SecchiError(
                f"{path.absolute()}: no lakehouse is here yet; 'secchi up' or 'secchi process' makes one, "
                "and --config names the secchi.toml of another"
            )
        return open_context(config, "secchi")


class _Commands(click.Group):
    """Finds commands as modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(commands.__path__))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{commands.__name__}.{cmd_name}").command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="secchi.toml to use; else the one that SECCHI_CONFIG names, else ./secchi.toml, else the defaults.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and the logs of dependencies.")
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, not only what is wrong.")
@click.version_option(package_name="secchi")
@click.pass_context
def cli(context: click.Context, config: Path | None, debug: bool, verbose: bool) -> None:
    """Secchi: telemetry from MQTT and SNMP, exactly once, in tables that can be queried."""
    context.obj = Settings(config, debug, verbose)
    _log_to_stderr(context.obj)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record) if record.exc_info else _flat(super().format(record))


def _log_to_stderr(settings: Settings) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if not settings.is_debug:
        handler.addFilter(lambda record: record.name.split(".")[0] in _OURS)
    logging.basicConfig(level=logging.INFO if settings.is_verbose else logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _flat(text: str) -> str:
    return printable(" ".join(text.split()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; returns its exit code: 1 failed, 2 a mistake in the call or configuration, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(given, "secchi", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        of = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "secchi"
        click.echo(f"secchi: {_flat(error.format_message()).rstrip('.')}; see '{of} --help'", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  the boundary of the process
        return _report(error, is_debug="--debug" in given)
    return code if isinstance(code, int) else 0


def _report(error: Exception, *, is_debug: bool) -> int:
    if is_debug:
        logging.getLogger(__name__).error("failed", exc_info=error)
    if isinstance(error, SecchiError):
        click.echo(f"secchi: {_flat(str(error))}", err=True)
        return 2 if isinstance(error, ConfigurationError) else 1
    if isinstance(error, OSError):
        click.echo(f"secchi: {_flat(reason_of(error))}", err=True)
        return 1
    what = f"{type(error).__name__}: {_flat(str(error))}"
    click.echo(f"secchi: {what}; run again with --debug for the traceback", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
