"""``secchi maintain``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings


@click.command()
@click.pass_obj
def command(settings: "Settings") -> None:
    """Merge files, apply retention, expire and sweep.

    Small files are merged, old rows dropped, old snapshots expired, and files that no snapshot holds deleted. Safe
    beside running collectors and batches, and when it is stopped at any point.
    """
    from rich.progress import Progress

    from pipelines.maintenance import maintain
    from pipelines.printing import console, print_rows
    from resources.errors import SecchiError

    context = settings.open()
    known = [table for table in context.tables.values() if context.lakehouse.exists(table.stored)]
    terminal = console(to_stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("Maintaining", total=len(known))
        reports = maintain(context, lambda report: progress.update(task, advance=1, description=report.table))
    rows = [(r.table, r.files_merged, r.files_dropped, r.snapshots_expired, r.files_deleted) for r in reports]
    print_rows(("table", "files merged", "files dropped", "snapshots expired", "files deleted"), rows, "table")
    if failed := [f"{r.table}: {r.error}" for r in reports if r.error]:
        raise SecchiError("; ".join(failed))
