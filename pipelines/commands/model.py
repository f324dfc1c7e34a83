"""``secchi model``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from resources.model_store import StoredModel


@click.command()
@click.option("--use", "model_id", metavar="ID", help="Put this model to use.")
@click.option("--group", metavar="NAME", help="The model of this group instead of that of the sensors' windows.")
@click.option("--rollback", is_flag=True, help="Put the model before the one in use to use.")
@click.pass_obj
def command(settings: "Settings", model_id: str | None, group: str | None, rollback: bool) -> None:
    """Show the stored anomaly models, or change which one is in use.

    Scores that are there stay as they are; windows that become final from now on are judged by the model in use.
    """
    from pipelines.printing import print_rows
    from pipelines.readiness import why_untrained
    from pipelines.training import MODEL, scores_table
    from resources.errors import SecchiError

    context = settings.open()
    models, name = context.models, scores_table(context.tables, group or MODEL).model or MODEL
    stored, current = models.ids(name), models.current(name)
    if model_id and rollback:
        raise click.UsageError("--use and --rollback exclude one another")
    if rollback:
        earlier = [one for one in stored if current and one < current]
        if not earlier:
            raise SecchiError(f"model {name}: there is none before {current}; stored are {stored}")
        model_id = earlier[-1]
    if model_id:
        models.use(name, model_id)
        click.echo(f"{name}: {model_id} is in use")
        return
    if not stored:
        click.echo(why_untrained(context, name) or f"model {name}: the first training comes with the next run")
        return
    rows = [(one, "in use" if one == current else "", *_facts(models.load(name, one))) for one in stored]
    print_rows(["model", "", "trained at", "windows", "snapshot"], rows, "table")


def _facts(model: "StoredModel") -> tuple[str, int, str]:
    training = model.training
    return f"{training.trained_at:%Y-%m-%d %H:%M:%SZ}", training.rows, str(training.snapshot)
