"""``secchi mib``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings


@click.group()
def command() -> None:
    """Teach Secchi the objects of more devices."""


@command.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.pass_obj
def load(settings: "Settings", paths: tuple[Path, ...]) -> int:
    """Load MIB modules from files and directories.

    What they import is taken from the same directories, else from what is built in. A module that cannot be compiled is
    named with the line, and does not stop the others. What was collected before is then named by them too, beside live
    data.
    """
    from pipelines.mib_loading import load_mibs
    from pipelines.printing import counted, print_rows
    from resources.mib_compiler import ordered

    done = load_mibs(settings.open(must_exist=False), paths)
    for problem in ordered(done.compiled.problems):
        click.echo(f"secchi: {problem}", err=True)
    modules = done.compiled.modules
    if modules:
        left_out = done.left_out
        rows = [(name, len(modules[name]) - left_out.get(name, 0), left_out.get(name, 0)) for name in sorted(modules)]
        print_rows(("module", "objects", "defined already"), rows, "table")
        click.echo(
            f"Loaded {counted(len(modules), 'module')}; {', '.join(done.asked)} read what was collected again with "
            "their next micro-batches ('secchi up', or 'secchi process' now)."
        )
    return 1 if done.compiled.problems else 0
