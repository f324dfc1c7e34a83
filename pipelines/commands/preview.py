"""``secchi preview``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.printing import Format


@click.command()
@click.argument("name")
@click.option("--last", metavar="D", default="1h", show_default=True, help="Event time to look back from now: 30m, 1d.")
@click.option("--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="The newest N rows."
)
@click.pass_obj
def command(settings: "Settings", name: str, last: str, form: "Format", limit: int) -> None:
    """Show what a calculation would give, writing nothing.

    NAME is a calculation of secchi.toml, with or without "gold."; its table need not be there yet. The rows are
    computed from what its input holds.
    """
    from pipelines.preview import preview
    from pipelines.printing import counted, print_rows
    from resources.durations import parse_duration

    try:
        span = parse_duration(last)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--last'") from error
    context = settings.open()
    found = preview(context, name, span)
    print_rows(found.columns, found.tail(limit).rows(), form)
    if found.height > limit and form == "table":
        click.echo(
            f"secchi: the newest {limit} of {counted(found.height, 'row')} are shown; --limit N shows more", err=True
        )
