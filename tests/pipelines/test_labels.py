"""Labels: what people say of spans of time, and what a training makes of it."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml.quantities import START as WINDOW_START
from pipelines.labels import add_label, is_labelled, known_labels
from pipelines.training import MODEL, train
from pipelines.waiting import request_rebuild
from tests.ml.windows import MINUTE, T0, frame, window
from tests.pipelines.plant import START, Reading
from tests.pipelines.test_training import GOLD, MINUTES, SCORES, plant_with_windows

SENSOR = {"site_id": 101, "device_id": 1000, "sensor_id": 10000}


def test_window_is_labelled_where_a_span_of_its_device_or_sensor_meets_it() -> None:
    windows = frame(*(window(minute, sensor_id=sensor) for minute in range(4) for sensor in (1, 2)))
    spans = pl.DataFrame(
        {
            "kind": ["confirmed", "false_alarm", "confirmed"],
            "site_id": [101, 101, 999],
            "device_id": [1001, 1001, 1001],
            "sensor_id": [2, None, None],
            "from_at": [T0 + MINUTE, T0 + 2.5 * MINUTE, T0],
            "to_at": [T0 + 2 * MINUTE, T0 + 3 * MINUTE, T0 + 9 * MINUTE],
        }
    )

    def met(*kinds: str) -> list[tuple[object, ...]]:
        return windows.filter(is_labelled(windows, spans, *kinds)).select(WINDOW_START, "sensor_id").rows()

    assert met("confirmed") == [(T0 + MINUTE, 2)]
    assert met("false_alarm") == [(T0 + 2 * MINUTE, 1), (T0 + 2 * MINUTE, 2)]
    assert met("maintenance") == []


def test_training_leaves_out_what_is_confirmed(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    span = (START, START + timedelta(minutes=5))
    add_label(plant.context, "confirmed", SENSOR, span, "seen")
    add_label(plant.context, "maintenance", SENSOR, (span[1], span[1] + MINUTE))
    scores = plant.context.tables[SCORES]
    assert known_labels(plant.context, scores, plant.table(GOLD))["kind"].sort().to_list() == [
        "confirmed",
        "maintenance",
    ]
    assert train(plant.context).rows == 2 * MINUTES - 6


def test_first_model_asks_for_what_was_judged_without_one(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    before = plant.table("gold.anomaly_scores")
    assert before.height == 2 * MINUTES and set(before["model_id"]) == {None}
    train(plant.context)
    plant.drain()
    after = plant.table("gold.anomaly_scores")
    assert (after.height, set(after["model_id"])) == (2 * MINUTES, {plant.context.models.current(MODEL)})


BLIND = """
import numpy as np
def fit(z_scores, *, trees, seed):
    return 0
def score(state, z_scores):
    return np.zeros(len(z_scores))
"""


def test_worse_model_is_stored_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The challenger finds everything normal, and none of the steps."""
    plant = plant_with_windows(tmp_path / "lake")
    first = train(plant.context)
    (tmp_path / "blind_detector.py").write_text(BLIND)
    monkeypatch.syspath_prepend(str(tmp_path))
    blind = plant.context.config.ml.model_copy(update={"detector": "blind_detector"})
    plant.context.config = plant.context.config.model_copy(update={"ml": blind})
    plant.now += timedelta(hours=1)
    second = train(plant.context)
    assert plant.context.models.ids(MODEL) == sorted([first.model_id, second.model_id])
    assert second.is_promoted == (plant.context.models.current(MODEL) == second.model_id)
    assert not second.is_promoted
    plant.context.models.use(MODEL, second.model_id)
    assert plant.context.models.current(MODEL) == second.model_id


def test_window_that_was_called_a_false_alarm_is_none_by_the_next_model(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    train(plant.context)
    outlier = Reading(0, 2 * 3600, 9e6)
    plant.land([outlier.payload])
    plant.drain()
    plant.now += timedelta(hours=1)
    plant.drain()

    def judged() -> pl.DataFrame:
        at = START + timedelta(seconds=outlier.second)
        return plant.table(SCORES).filter((pl.col("window_start") == at) & (pl.col("sensor_id") == 10_000))

    assert judged()["is_anomaly"].to_list() == [True]
    device = judged().select("site_id", "device_id").row(0, named=True)
    add_label(plant.context, "false_alarm", device, (START, START + timedelta(hours=3)))
    train(plant.context)
    request_rebuild(plant.context, SCORES)
    plant.drain()
    assert judged()["is_anomaly"].to_list() == [False]
