"""The first training of a model: whether there is enough for it, and what is missing."""

from typing import TYPE_CHECKING

import polars as pl

from pipelines.training import MODEL, NotEnoughWindowsError, has_model, scores_table, train, windows_table

if TYPE_CHECKING:
    from pipelines.context import Context


def is_ready(context: "Context", model: str = MODEL) -> bool:
    """Whether there are ``ml.min_windows`` final windows, and in most series enough to tell what is usual."""
    return _shortage(context, model) is None


def train_if_needed(context: "Context", model: str = MODEL) -> str | None:
    """Trains when there is no usable model and there are enough windows; returns the new model's id, else None."""
    if has_model(context, model) or not is_ready(context, model):
        return None
    try:
        return train(context, model).model_id
    except NotEnoughWindowsError:
        return None  # enough windows, but their values are missing


def why_untrained(context: "Context", model: str = MODEL) -> str | None:
    """What keeps a model from its first training, for people to read; None where nothing does."""
    return None if has_model(context, model) else _shortage(context, model)


def has_windows(context: "Context", model: str = MODEL) -> bool:
    """Whether there are final windows to learn from, be they too few."""
    return not _final(context, model).is_empty()


def _shortage(context: "Context", model: str) -> str | None:
    from ml.baselines import MIN_WINDOWS

    table, least = windows_table(context.tables, model), context.config.ml.min_windows
    counts = _final(context, model)
    windows, usual = int(counts.sum()), float(str(counts.median() or 0))
    if windows >= least and usual >= MIN_WINDOWS:
        return None
    return (
        f"model {model}: {table.identifier} has {windows} final windows in {len(counts)} series, half of which have "
        f"{usual:g} or fewer; the first training needs {least} (ml.min_windows), and {MIN_WINDOWS} in most series"
    )


def _final(context: "Context", model: str) -> pl.Series:
    """How many final windows each series has."""
    from resources.selection import Among

    table = windows_table(context.tables, model)
    if not context.lakehouse.exists(table.stored):
        return pl.Series([], dtype=pl.UInt32)
    context.lakehouse.table(table.stored, refresh=True)
    things = scores_table(context.tables, model).series if model != MODEL else table.series
    rows = context.lakehouse.read(table.stored, Among("is_final", [True]), columns=things)
    return rows.group_by(things).len()["len"]
