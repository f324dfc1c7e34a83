"""``secchi quarantine``."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import polars as pl

    from pipelines.cli import Settings
    from pipelines.context import Context


@click.command()
@click.option("--reason", metavar="R", help="Only records of this reason, for example invalid_json.")
@click.option("--stage", metavar="T", help="Only records that this table could not take.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="Records to show."
)
@click.option("--show-raw", is_flag=True, help="Show the bytes as they came, too.")
@click.pass_obj
def command(settings: "Settings", reason: str | None, stage: str | None, limit: int, show_raw: bool) -> None:
    """Show the records that could not be used.

    Those that wait for a replay: counted by table and reason, then the newest one by one.
    """
    from pipelines.printing import counted, print_rows
    from pipelines.waiting import counts, waiting_records

    context = settings.open()
    waiting = waiting_records(context, stage, reason)
    if waiting.is_empty():
        click.echo("Nothing waits in quarantine.")
        return
    grouped = counts(waiting)
    click.echo(f"In quarantine: {counted(waiting.height, 'record')}.")
    print_rows(grouped.columns, grouped.rows(), "table")
    if limit:
        more = f" {limit} of {waiting.height}; --limit shows more" if waiting.height > limit else ""
        click.echo(f"The newest{more}:")
        _print_records(context, waiting.head(limit), show_raw)


def _print_records(context: "Context", shown: "pl.DataFrame", show_raw: bool) -> None:
    from pipelines.printing import print_rows, text_or_hex
    from pipelines.waiting import raw_bytes

    columns = ["quarantined_at", "stage", "reason", "message", "stream", "sequence", "row"]
    rows: list[tuple[Any, ...]] = shown.select(columns).rows()
    if show_raw:
        raw = raw_bytes(context, shown["record_id"].to_list())
        rows = [(*row, text_or_hex(raw[record])) for row, record in zip(rows, shown["record_id"], strict=True)]
        columns.append("raw")
    print_rows(columns, rows, "table")
