"""``secchi process``."""

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.context import Context, TableResult


@click.command()
@click.pass_obj
def command(settings: "Settings") -> None:
    """Carry all that waits through all layers once.

    Needs no daemon. Trains the anomaly model where there is none and enough windows are there. The exit code is 1 if
    a table failed.
    """
    from pipelines.printing import counted, print_rows
    from resources.errors import SecchiError

    if not settings.is_verbose:
        # The errors of tables come back with the results and are told below, once.
        logging.getLogger("pipelines.micro_batch").setLevel(logging.CRITICAL)
    context = settings.open(must_exist=False)
    began = time.perf_counter()
    results = _drain_with_progress(context)
    rows = list(_summed(results))
    if rows:
        print_rows(("table", "rows", "duplicates", "quarantined", "reasons", "batches"), rows, "table")
    done = sum(result.did_work for result in results)
    click.echo(f"{counted(done, 'commit')} in {time.perf_counter() - began:.1f} s." if done else "Nothing was waiting.")
    for table, problem in {result.table: result.problem for result in results if result.problem}.items():
        click.echo(f"secchi: warning: {table}: {problem}; its last version goes on serving", err=True)
    errors = {result.table: result.error for result in results if result.error}
    if errors:
        raise SecchiError(
            "; ".join(error if error.startswith(table) else f"{table}: {error}" for table, error in errors.items())
        )


def _drain_with_progress(context: "Context") -> "list[TableResult]":
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from pipelines.micro_batch import MicroBatches
    from pipelines.printing import console

    total = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    terminal = console(to_stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("Carrying", total=None)

        def tell(results: "list[TableResult]") -> None:
            nonlocal total
            total += sum(result.rows for result in results)
            worked = [result.table for result in results if result.did_work]
            progress.update(task, description=f"{total} rows; last {worked[-1] if worked else 'nothing'}")

        batches = MicroBatches(context)
        results = batches.drain(tell)
        if not any(result.error for result in results) and _train(context):
            results += batches.drain(tell)  # for the tables that waited for the model
        return results


def _train(context: "Context") -> bool:
    from pipelines.readiness import has_windows, train_if_needed, why_untrained
    from pipelines.training import models

    trained = [model_id for model in models(context.tables) if (model_id := train_if_needed(context, model))]
    for model_id in trained:
        click.echo(f"Trained the anomaly model {model_id}.", err=True)
    for model in models(context.tables):
        if has_windows(context, model) and (reason := why_untrained(context, model)):
            click.echo(reason, err=True)
    return bool(trained)


def _summed(results: "Iterable[TableResult]") -> "Iterable[tuple[Any, ...]]":
    """One row a table: rows, duplicates, quarantined, by reason, commits."""
    by_table: dict[str, list[TableResult]] = {}
    for result in results:
        if result.did_work:
            by_table.setdefault(result.table, []).append(result)
    for table, done in by_table.items():
        reasons: dict[str, int] = {}
        for result in done:
            for reason, count in result.quarantined.items():
                reasons[reason] = reasons.get(reason, 0) + count
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        rows, duplicates = sum(r.rows for r in done), sum(r.duplicates for r in done)
        yield table, rows, duplicates, sum(reasons.values()), told, len(done)
