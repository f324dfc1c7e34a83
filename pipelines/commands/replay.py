"""``secchi replay``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.context import Context


@click.command()
@click.option("--table", metavar="T", help="Silver table that is asked; else each one that has records waiting.")
@click.option("--reason", metavar="R", help="Only records of this reason.")
@click.pass_obj
def command(settings: "Settings", table: str | None, reason: str | None) -> None:
    """Ask for quarantined records again.

    For when what was wrong with them is mended. The request is written down; the table itself takes the records with
    its next micro-batch, none of them twice.
    """
    from pipelines.printing import counted
    from pipelines.waiting import request_replay, waiting_records

    context = settings.open()
    _check_table(context, table)
    waiting = waiting_records(context, table, reason)
    wanted = {
        stage: count for stage, count in waiting["stage"].value_counts().iter_rows() if _is_decoded(context, stage)
    }
    for stage in sorted(wanted):
        request = request_replay(context, stage, reason)
        click.echo(
            f"{stage}: asked for {counted(wanted[stage], 'record')} again (request {request}); "
            "the table takes them with its next micro-batch ('secchi up', or 'secchi process' now)"
        )
    if not wanted:
        click.echo("Nothing that can be replayed waits in quarantine.")


def _check_table(context: "Context", table: str | None) -> None:
    if table is not None and not _is_decoded(context, table):
        known = sorted(t for t in context.tables if _is_decoded(context, t))
        raise click.BadParameter(f"must be one of {known}, got {table!r}", param_hint="'--table'")


def _is_decoded(context: "Context", table: str) -> bool:
    return table in context.tables and context.tables[table].step == "decode"
