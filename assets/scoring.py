"""The table of a group's scores: each thing's columns judged beside one another, by a model of the group's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import polars as pl

from assets.expressions import nearest
from assets.gold.anomaly_scores import VERDICT_COLUMNS, with_model
from assets.table import Column, Table, Window, column, declare
from ml.anomaly_model import judge, restore
from ml.groups import CATEGORY, PREFIX, QUANTITY, Group, as_judged, as_windows
from ml.identity import score_ids
from ml.policy import HISTORY, Policy, holding
from ml.quantities import END, REACH, START
from resources.errors import ConfigurationError
from resources.model_store import StoredModel
from resources.stored_table import Partition

_FINAL = "is_final"
_BY_DEFAULT = """
One row a final window and column of a group's things: how unusual its value is, beside the thing's other columns.

Source: the final rows of `{source}`, by {by}. Numbers are judged as they are, categories by how rarely they came in the
thing's history. A corrected window is judged again. Until there is a model, a number is compared with its own last
windows; where that cannot be, `reason` says why.
"""


@dataclass(frozen=True)
class GroupScores:
    """The function of a group's table."""

    group: Group

    def windows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The windows that the model judges and learns from."""
        return as_windows(rows, self.group)

    def __call__(
        self,
        rows: pl.DataFrame,
        *,
        model: StoredModel | None,
        policies: Sequence[Policy] = (),
        wanted: pl.DataFrame | None = None,
    ) -> pl.DataFrame:
        """The verdicts."""
        needed = None if wanted is None else wanted.rename({name: PREFIX + name for name in self.group.by})
        rules = holding(policies, self.group)
        judged = judge(restore(model) if model else None, self.windows(rows), rules, needed)
        told = with_model(judged, model)
        told = told.with_columns(score_ids(told, model.sha256 if model else ""))
        told = told.with_columns(pl.col(PREFIX + name).alias(name) for name in self.group.by)
        has_value = pl.col(CATEGORY).is_not_null() & (pl.col("reason") == "missing_values")
        reason = pl.when(has_value).then(pl.lit("too_little_history")).otherwise("reason").alias("reason")
        return told.with_columns(reason).select(*self.group.by, QUANTITY, START, END, *(c.name for c in _verdicts()))


def _verdicts() -> tuple[Column, ...]:
    return tuple(replace(c, lineage=()) for c in VERDICT_COLUMNS)


def group_of(table: Table) -> Group | None:
    """The group whose scores a table holds; None for those of sensors."""
    return table.function.group if isinstance(table.function, GroupScores) else None


def judged_windows(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """What a table with a model judges of rows of its input."""
    return table.function.windows(rows) if isinstance(table.function, GroupScores) else rows


def judged_scores(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a table of scores with the columns of the series by which its model knows them."""
    group = group_of(table)
    return as_judged(rows, group) if group else rows


def judged_keys(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """The key of each row that a table with a model has for rows of its input, and the ``revision`` of those."""
    names = {PREFIX + name: name for name in table.series}
    windows = judged_windows(table, rows)
    return windows.with_columns(pl.col(old).alias(new) for old, new in names.items() if old in windows.columns)


def check_policy(policy: Policy, tables: Mapping[str, Table]) -> None:
    """What a policy names is there: its group, the columns that tell the group's or the sensors' series, their values.

    Raises:
        ValueError: it is not; says what the policy has and what is accepted.
    """
    groups = {group.name: table for table in tables.values() if (group := group_of(table)) is not None}
    if policy.group is not None and policy.group not in groups:
        raise ValueError(f"group = {policy.group!r} is none; there are {sorted(groups)}")
    table = groups[policy.group] if policy.group else next(t for t in tables.values() if t.model and not group_of(t))
    told = [name for name in table.key if name != START]
    for name, value in policy.match.items():
        if name not in told:
            raise ValueError(f"match names {name!r}; a series of {table.identifier} is told by {told}")
        if table.schema[name].is_numeric() != isinstance(value, int):
            raise ValueError(f"match.{name} must be {table.schema[name]}, got {value!r}")


def windows_a_row(table: Table) -> int:
    """How many windows a row of its input is."""
    if not isinstance(table.function, GroupScores):
        return 1
    return len(table.function.group.values) + len(table.function.group.categories)


def scores_of(group: Group, source: Table, description: str = _BY_DEFAULT, *, file: str = "assets") -> Table:
    """The table ``gold.<name>_scores``.

    Raises:
        ConfigurationError: the source is no table of windows that become final, or has not the columns that are named.
    """
    place = f"{file}: ml.group {group.name!r}"
    if source.window is None or _FINAL not in source.schema or END not in source.schema:
        raise ConfigurationError(f"{place}: from = {group.source!r} must be a table of windows that become final")
    for name in (*group.by, *group.values, *group.categories):
        if name not in source.schema:
            raise ConfigurationError(f"{place}: {group.source} has no column {name!r}; it has {sorted(source.schema)}")
    if words := [name for name in group.values if not source.schema[name].is_numeric()]:
        raise ConfigurationError(f"{place}: values: {words[0]!r} holds no numbers; name it under categories")
    inherited = {c.name: c for c in source.columns}
    told = (replace(inherited[n], required=True, lineage=(f"{group.source}.{n}",)) for n in (*group.by, START, END))
    lineage = tuple(f"{group.source}.{name}" for name in (*group.values, *group.categories))
    quantity = column(QUANTITY, pl.String, "The column of the group that was judged", required=True, lineage=lineage)
    key = (*group.by, QUANTITY, START)
    size = source.window.size
    return declare(
        layer="gold",
        name=f"{group.name}_scores",
        description=description.format(source=group.source, by=", ".join(group.by)),
        function=GroupScores(group),
        columns=(*told, quantity, *_verdicts()),
        inputs=(source,),
        model=group.name,
        key=key,
        series=group.by,
        time=START,
        window=Window(size=size, reach_ahead=(REACH + HISTORY) * size, has_finality=False),
        final_only=True,
        definition=repr(group),
        partitions=(Partition(START, "hour"),),
        kinds=("iceberg", "gold", "scikitlearn"),
        freshness=timedelta(minutes=10),
    )


def with_groups(tables: Mapping[str, Table], groups: Sequence[Group], file: str) -> dict[str, Table]:
    """The tables with those of the groups of a file; one takes the place of the shipped one of its name.

    Raises:
        ConfigurationError: a group's source is not there, or another table has the name of its scores.
    """
    found = dict(tables)
    for group in groups:
        if group.source not in tables:
            place, near = f"{file}: ml.group {group.name!r}", nearest(group.source, list(tables))
            raise ConfigurationError(f"{place}: from = {group.source!r} is no table; {near}")
        made = scores_of(group, tables[group.source], file=file)
        there = found.get(made.identifier)
        if there is not None and not isinstance(there.function, GroupScores):
            raise ConfigurationError(
                f"{file}: ml.group {group.name!r}: {made.identifier} is there already; choose another name"
            )
        found[made.identifier] = made
    return found
