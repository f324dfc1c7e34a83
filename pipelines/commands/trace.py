"""``secchi trace``."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.tracing import Traced


@click.command()
@click.argument("table")
@click.argument("key", nargs=-1, metavar="NAME=VALUE...")
@click.option(
    "--limit", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="Rows to show of each table."
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the output.")
@click.pass_obj
def command(settings: "Settings", table: str, key: tuple[str, ...], limit: int, form: str) -> None:
    """Follow a row back to the bytes it came from.

    TABLE is layer.table; NAME=VALUE name the row by columns, enough of them to mean one. Shown are the rows of each
    table that it was computed from, their landing positions and payloads, and the commits and runs that wrote them.
    """
    from pipelines.tracing import trace

    found = trace(settings.open(), table, dict(map(named_value, key)))
    if form == "json":
        import json

        click.echo(json.dumps(_as_json(found), indent=1))
    else:
        _print(found, limit)


def named_value(text: str) -> tuple[str, str]:
    """A column and its value.

    Raises:
        click.BadParameter: the text is not NAME=VALUE.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"must be NAME=VALUE, got {text!r}", param_hint="KEY")
    return name, value


def _print(traced: "Traced", limit: int) -> None:
    from pipelines.printing import counted, print_rows

    rows, of = traced.rows, ""
    if traced.expected is not None and rows.height < traced.expected:
        of = f" of {traced.expected}; the others are past their retention"
    click.echo(f"{traced.table.identifier}: {counted(rows.height, 'row')}{of}")
    if rows.height:
        told = rows.head(limit)
        shown = [name for name in rows.columns if told[name].null_count() < told.height]
        print_rows(shown, told.select(shown).with_columns(_readable(traced, shown)).rows(), "table")
        if rows.height > limit:
            click.echo(f"... and {rows.height - limit} more; --limit shows them")
        columns = ["table_batch_id", "committed_at", "snapshot_id", "run_id"]
        print_rows(["batch_id", *columns[1:]], traced.commits.select(columns).rows(), "table")
    for origin in traced.origins:
        click.echo("")
        _print(origin, limit)


def _readable(traced: "Traced", shown: list[str]) -> list[Any]:
    """Payloads as text where they are text, else in hex."""
    import polars as pl

    from pipelines.printing import text_or_hex

    binary = [name for name in shown if traced.rows.schema[name] == pl.Binary]
    return [pl.col(name).map_elements(text_or_hex, return_dtype=pl.String) for name in binary]


def _as_json(traced: "Traced") -> dict[str, Any]:
    from pipelines.printing import to_json

    def listed(rows: list[dict[str, Any]]) -> Any:
        return to_json(rows)

    return {
        "table": traced.table.identifier,
        "rows": listed(traced.rows.to_dicts()),
        "missing": None if traced.expected is None else traced.expected - traced.rows.height,
        "commits": listed(traced.commits.to_dicts()),
        "from": [_as_json(origin) for origin in traced.origins],
    }
