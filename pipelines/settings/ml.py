"""``[ml]``: the anomaly model, and what is asked of its anomalies."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from ml.policy import HISTORY, Direction, Policy
from ml.quantities import FEATURES
from pipelines.settings.cron import Cron
from pipelines.settings.fields import Model
from resources.durations import PositiveDuration

Rate = Annotated[float, Field(ge=1e-12, lt=1)]
_MOST = HISTORY // 2


class PolicyConfig(Model):
    """``[[ml.policy]]``: what makes a window of some series an anomaly. The first one that matches holds.

    What it names of a series depends on the tables: ``assets.scoring.check_policy``.
    """

    group: str | None = None
    match: dict[str, int | str] = {}
    features: Annotated[list[str], Field(min_length=1)] = list(FEATURES)
    direction: Direction = "both"
    minimum_deviation: Annotated[float, Field(ge=0)] = 0.0
    false_alarm_rate: Rate | None = None
    persistence: Annotated[int, Field(ge=1, le=_MOST)] = 1
    cooldown: Annotated[int, Field(ge=0, le=_MOST)] = 10

    @field_validator("features")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if strange := [name for name in value if name not in FEATURES]:
            raise ValueError(f"names {strange[0]!r}; features are {list(FEATURES)}")
        return value


class GroupConfig(Model):
    """``[[ml.group]]``: columns of a table that are judged together, by a model of their own."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    source: Annotated[str, Field(alias="from")]
    by: Annotated[list[str], Field(min_length=1)]
    values: list[str] = []
    categories: list[str] = []

    @model_validator(mode="after")
    def _named(self) -> "GroupConfig":
        if self.name == "sensor_windows":
            raise ValueError("has name = 'sensor_windows', which is the model of the sensors; choose another name")
        if not (self.values or self.categories):
            raise ValueError(f"{self.name!r} has neither values nor categories; name the columns to judge")
        named = [*self.by, *self.values, *self.categories]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{self.name!r} names the column {twice[0]!r} twice")
        return self


class ModelConfig(Model):
    """``[ml]``: training of the anomaly model, and the policies of its anomalies."""

    detector: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")] = "ml.isolation_forest"
    min_windows: Annotated[int, Field(ge=10)] = 500
    max_windows: Annotated[int, Field(ge=10)] = 200_000
    trees: Annotated[int, Field(ge=1)] = 100
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    false_alarm_rate: Rate = Policy().false_alarm_rate
    keep_models: Annotated[int, Field(ge=1)] = 5
    recent: PositiveDuration = timedelta(days=1)
    schedule: Cron = "0 3 * * *"
    policy: list[PolicyConfig] = []
    group: list[GroupConfig] = []

    @model_validator(mode="after")
    def _enough_windows(self) -> "ModelConfig":
        if self.min_windows > self.max_windows:
            raise ValueError(
                f"has min_windows = {self.min_windows}, which must not be more than max_windows = {self.max_windows}: "
                "no training would ever have enough"
            )
        return self

    def rules(self) -> list[Policy]:
        """The policies in their order; the last one holds for every other series."""
        chosen = [
            Policy(
                group=one.group,
                match=one.match,
                features=tuple(one.features),
                direction=one.direction,
                minimum_deviation=one.minimum_deviation,
                false_alarm_rate=one.false_alarm_rate or self.false_alarm_rate,
                persistence=one.persistence,
                cooldown=one.cooldown,
            )
            for one in self.policy
        ]
        return [*chosen, Policy(false_alarm_rate=self.false_alarm_rate)]
