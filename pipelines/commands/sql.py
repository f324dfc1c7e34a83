"""``secchi sql``."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.printing import Format

_SHOWN = 1000


@click.command()
@click.argument("statement")
@click.option("--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"At most N rows; without it {_SHOWN} in a table, and all of them as CSV and JSON.",
)
@click.pass_obj
def command(settings: "Settings", statement: str, form: "Format", limit: int | None) -> None:
    """Query all layers with one SQL statement.

    STATEMENT is in DuckDB's dialect and only reads; "-" takes it from standard input. Tables are written layer.table:
    bronze.mqtt_messages, silver.sensor_readings, gold.sensor_windows_1m.
    """
    from pipelines.printing import print_rows
    from pipelines.query import open_query
    from resources.duckdb import connect

    text = sys.stdin.read() if statement == "-" else statement
    context = settings.open()
    connection = connect(context.lakehouse, (table.stored for table in context.tables.values()))
    most = _SHOWN if limit is None and form == "table" else limit
    result = open_query(connection, text, most)
    print_rows(result.columns, result.rows(), form)
    if result.is_cut:
        click.echo(f"secchi: only the first {most} rows are shown; --limit N shows more", err=True)
