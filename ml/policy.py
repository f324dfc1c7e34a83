"""What people ask of the anomalies of a series: how rare, which way, how far, how long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from ml.groups import PREFIX, Group
from ml.quantities import FEATURES, SPAN, Floats, Integers

HISTORY = 2 * SPAN - 2
"""A decision looks at windows that start at most this many sizes before."""

Direction = Literal["both", "above", "below"]


@dataclass(frozen=True)
class Policy:
    """What makes a window of some series an anomaly.

    Attributes:
        match: columns of the series and the values they must have; empty matches every series.
        group: the group whose series are meant; None for sensors, and for all with an empty ``match``.
        features: what is looked at; the others count as usual.
        direction: whether the level must be above what is expected, below it, or either.
        minimum_deviation: how far the level must be from what is expected, in the unit of the sensor.
        false_alarm_rate: share of normal windows whose score may be that high.
        persistence: how many windows in a row must have such a score.
        cooldown: how many windows must have been without an anomaly before the next one is an alarm.
    """

    match: Mapping[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = FEATURES
    direction: Direction = "both"
    minimum_deviation: float = 0.0
    false_alarm_rate: float = 0.0005
    persistence: int = 1
    cooldown: int = 10
    group: str | None = None


@dataclass(frozen=True)
class Policies:
    """The policy of each window, as arrays."""

    rules: Sequence[Policy]
    number: Integers

    def of(self, name: str) -> Floats:
        """A number of each window's policy."""
        return np.array([float(getattr(rule, name)) for rule in self.rules])[self.number]

    def unwanted(self) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
        """Whether each feature of each window is one that its policy does not look at."""
        return np.array([[name not in rule.features for name in FEATURES] for rule in self.rules])[self.number]

    def is_wanted_side(self, deviation: Floats) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Whether each deviation goes the way that its policy asks for."""
        side = np.array([{"both": 0, "above": 1, "below": -1}[rule.direction] for rule in self.rules])[self.number]
        return np.asarray((side == 0) | (np.sign(deviation) == side))


def holding(policies: Sequence[Policy], group: Group | None) -> list[Policy]:
    """The policies that may hold for the series of a group, or of sensors (None), in their order."""
    if group is None:
        return [policy for policy in policies if policy.group is None]
    ours = (policy for policy in policies if policy.group == group.name or not (policy.group or policy.match))
    names = {name: PREFIX + name for name in group.by}
    return [replace(one, match={names.get(n, n): value for n, value in one.match.items()}) for one in ours]


def assigned(rows: pl.DataFrame, policies: Sequence[Policy]) -> Policies:
    """The first policy that matches each row; one that matches all stands behind the last."""
    rules = [*policies, Policy()]
    number = pl.lit(len(rules) - 1, pl.Int64)
    for index in range(len(policies) - 1, -1, -1):
        matches = [pl.col(name) == value for name, value in rules[index].match.items()]
        number = pl.when(pl.all_horizontal(pl.lit(True), *matches).fill_null(False)).then(index).otherwise(number)
    return Policies(rules, rows.with_columns(number.cast(pl.Int64).alias("n"))["n"].to_numpy())
