"""``secchi explain``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.explaining import Explained


@click.command()
@click.argument("score_id")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the plot goes; SCORE_ID.png in the current directory.",
)
@click.option("--group", metavar="NAME", help="Look in the table of this group alone; else in each table of scores.")
@click.pass_obj
def command(settings: "Settings", score_id: str, png: Path | None, group: str | None) -> int:
    """Compute a score again, and say why it is what it is and what was corrected since.

    SCORE_ID stands in gold.anomaly_scores or in the table of a group. The score is computed from its own row and the
    stored model, to the last bit; then it is compared with what the tables hold now.
    """
    from pipelines.explaining import explain, write_plot

    told = explain(settings.open(), score_id, group)
    path = png or Path(f"{score_id}.png")
    write_plot(told, path)
    _print(told)
    click.echo(f"{path}: written")
    if told.differences:
        click.echo(f"secchi: score {score_id}: computed again differs in {', '.join(told.differences)}", err=True)
    return 1 if told.differences else 0


def _print(told: "Explained") -> None:
    from pipelines.explaining import series

    row = told.row
    start, end = row["window_start"], row["window_end"]
    click.echo(f"{told.table.identifier}: {series(told)}, {start:%Y-%m-%d %H:%M:%SZ} to {end:%H:%M:%SZ}")
    click.echo(_verdict(told))
    click.echo(_judge(told))
    if row["expected_low"] is not None:
        expected = f"expected {row['expected_low']:.6g} to {row['expected_high']:.6g}"
        click.echo(f"{expected} (three usual deviations), direction {row['direction']}")
    _print_features(told)
    _print_plot(told)
    click.echo("Since then:" if told.since else "Since then nothing of it was corrected.")
    for line in told.since:
        click.echo(f"- {line}")


def _verdict(told: "Explained") -> str:
    row = told.row
    if row["score"] is None:
        return f"no score: {row['reason']}"
    kind = "an alarm" if row["is_alarm"] else "an anomaly, no new alarm" if row["is_anomaly"] else "no anomaly"
    period = row["return_period_windows"]
    rare = f", once in {period:,.0f} normal windows" if period is not None else ""
    return f"score {row['score']!r}, threshold {row['threshold']!r}{rare}: {kind}"


def _judge(told: "Explained") -> str:
    if told.model is None or told.recomputed is None:
        return "judged by the series' own last windows (robust_z): no model took part, its row has no features"
    same = "differs" if told.differences else "equal to the last bit"
    trained = f"trained {told.model.training.trained_at:%Y-%m-%d %H:%M:%SZ} on snapshot {told.model.training.snapshot}"
    return f"computed again {told.recomputed.score!r}, {same}; model {told.model.model_id}, {trained}"


def _print_features(told: "Explained") -> None:
    from pipelines.printing import print_rows

    if told.recomputed is None:
        return
    added = told.recomputed.contributions
    rows = [(name, told.row[f"feature_{name}"], added[name]) for name in sorted(added, key=added.__getitem__)[::-1]]
    print_rows(["feature", "z-score", "adds to the score"], rows, "table")


def _print_plot(told: "Explained") -> None:
    from pipelines.explaining import BEFORE, judged, means
    from pipelines.plotting import text_plot

    row = told.row
    if told.windows.is_empty() or row["expected_low"] is None:
        return
    for line in text_plot(means(told), (row["expected_low"], row["expected_high"]), BEFORE):
        click.echo(line)
    click.echo(f"{'':>13} the {judged(told)} of each window, ◆ the judged one, ░ expected")
