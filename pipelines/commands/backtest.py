"""``secchi backtest``."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.label import TIME

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.printing import Format


@click.command()
@click.option("--from", "low", type=TIME, required=True, metavar="TIME", help="Start, UTC: 2026-03-01T12:00.")
@click.option("--to", "high", type=TIME, required=True, metavar="TIME", help="End, UTC, exclusive.")
@click.option("--group", metavar="NAME", help="The things of this group instead of the sensors.")
@click.option("--champion", is_flag=True, help="Judge with the model in use instead of one trained on what is before.")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("backtest.png"),
    show_default=True,
    metavar="FILE",
    help="Where the plot goes.",
)
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", help="Form of the rows."
)
@click.pass_obj
def command(
    settings: "Settings",
    low: datetime,
    high: datetime,
    group: str | None,
    champion: bool,
    png: Path,
    form: "Format",
) -> None:
    """Judge a span of history as if it came in now: alarms a day, precision and recall where there are labels.

    Nothing is written but the plot. The model is trained on the windows before --from alone.
    """
    from datetime import UTC

    from pipelines.backtesting import backtest, write_plot
    from pipelines.printing import print_rows
    from pipelines.training import MODEL

    if high <= low:
        raise click.BadParameter(f"must be later than --from {low:%Y-%m-%dT%H:%M:%S}", param_hint="'--to'")
    span = (low.replace(tzinfo=UTC), high.replace(tzinfo=UTC))
    told = backtest(settings.open(), *span, use_champion=champion, model=group or MODEL)
    write_plot(told, png)
    print_rows(told.rows.columns, told.rows.rows(), form)
    click.echo(f"The model: {told.model}.", err=True)
    click.echo(f"{png}: written", err=True)
