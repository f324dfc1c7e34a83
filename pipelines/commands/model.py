"""``secchi model``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings


@click.command()
@click.option("--use", "model_id", metavar="ID", help="Put this model to use.")
@click.option("--rollback", is_flag=True, help="Put the model before the one in use to use.")
@click.pass_obj
def command(settings: "Settings", model_id: str | None, rollback: bool) -> None:
    """Show the stored anomaly models, or change which one is in use.

    Scores that are there stay as they are; windows that become final from now on are judged by the model in use.
    """
    from pipelines.printing import print_rows
    from pipelines.training import MODEL
    from resources.errors import SecchiError

    models = settings.open().models
    stored, current = models.ids(MODEL), models.current(MODEL)
    if model_id and rollback:
        raise click.UsageError("--use and --rollback exclude one another")
    if rollback:
        earlier = [one for one in stored if current and one < current]
        if not earlier:
            raise SecchiError(f"model {MODEL}: there is none before {current}; stored are {stored}")
        model_id = earlier[-1]
    if model_id:
        models.use(MODEL, model_id)
        click.echo(f"{MODEL}: {model_id} is in use")
        return
    rows = [(one, "in use" if one == current else "", *_facts(settings, one)) for one in stored]
    print_rows(["model", "", "trained at", "windows", "snapshot"], rows, "table")


def _facts(settings: "Settings", model_id: str) -> tuple[str, int, str]:
    from pipelines.training import MODEL

    training = settings.open().models.load(MODEL, model_id).training
    return f"{training.trained_at:%Y-%m-%d %H:%M:%SZ}", training.rows, str(training.snapshot)
