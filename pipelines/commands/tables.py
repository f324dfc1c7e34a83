"""``secchi tables``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.printing import Format


@click.command()
@click.option("--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True)
@click.pass_obj
def command(settings: "Settings", form: "Format") -> None:
    """List tables with rows, bytes, newest time, lag.

    The lag is how far the newest event time is behind the clock. All of it comes from metadata; no table is read.
    """
    from pipelines.printing import age, print_rows, size
    from pipelines.standing import extents

    context = settings.open()
    now = context.clock()
    rows = []
    for extent in extents(context):
        lag = (now - extent.newest).total_seconds() if extent.newest else None
        is_table = form == "table"
        newest = extent.newest.replace(microsecond=0) if extent.newest and is_table else extent.newest
        rows.append(
            (
                extent.table,
                extent.rows,
                extent.files,
                size(extent.bytes) if is_table else extent.bytes,
                newest,
                age(lag) if is_table else lag,
            )
        )
    print_rows(("table", "rows", "files", "bytes", "newest", "lag" if form == "table" else "lag_seconds"), rows, form)
