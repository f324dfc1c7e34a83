"""Scores through the tables: any arrival of readings and any crash gives the scores of all readings at once."""

from datetime import timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest

from pipelines.training import train
from tests.pipelines.event_time import START, Row, Silver, carry_through

WINDOWS, SCORES = "gold.sensor_windows_1m", "gold.anomaly_scores"
LEARNED, JUDGED = 60, 90
ARRIVAL = ("batch_id", "score_id", "window_revision", "is_retracted")
MODEL = ("model_id", "model_sha256", "training_snapshot")
"""What differs, besides what depends on the order of arrival: the id of a snapshot is random, and is in the model's."""


def readings(low: int, high: int) -> list[Row]:
    """Three readings a minute of three sensors; from minute 75 on, the first one is far out."""
    return [
        (sensor, second, (second * 7919 + sensor) % 101 / 10 + (300.0 if sensor == 0 and second >= 75 * 60 else 0.0))
        for second in range(60 * low, 60 * high, 20)
        for sensor in range(3)
    ]


def learned(folder: Path) -> Silver:
    """A model of the first hour; its scores are made."""
    silver = Silver(folder, options={"ml": {"min_windows": 100, "trees": 20}})
    silver.append(readings(0, LEARNED))
    silver.compute(WINDOWS, SCORES)
    train(silver.context)
    silver.compute(SCORES)
    return silver


def scores(silver: Silver) -> pl.DataFrame:
    silver.append([(sensor, 60 * 200, 1.0) for sensor in range(3)])  # all windows before are final now
    silver.compute(WINDOWS, SCORES)
    found = silver.rows(SCORES)
    assert set(found["method"]) == {"model"}
    return found.drop(ARRIVAL + MODEL)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    silver = learned(tmp_path_factory.mktemp("whole"))
    silver.append(readings(LEARNED, JUDGED))
    found = scores(silver)
    assert found.filter("is_alarm", sensor_id=0).height > 0
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_arrival_and_crash_gives_the_scores_of_all_at_once(
    tmp_path: Path, at_once: pl.DataFrame, seed: int
) -> None:
    silver, random, rows = learned(tmp_path), Random(seed), readings(LEARNED, JUDGED)
    random.shuffle(rows)
    for number in range(4):
        silver.append(rows[number::4])
        crash = (random.randint(1, 3), random.random() < 0.5)
        carry_through(silver, crash, lambda: silver.compute(WINDOWS, SCORES))
    assert scores(silver).equals(at_once)
    assert silver.rows(SCORES)["window_revision"].max() != 0, "late readings have corrected windows"


def test_a_reading_less_gives_other_scores(tmp_path: Path, at_once: pl.DataFrame) -> None:
    """The comparison bites."""
    silver = learned(tmp_path)
    silver.append(readings(LEARNED, JUDGED)[:-1])
    assert not scores(silver).equals(at_once)


def test_late_reading_judges_its_window_again_and_those_that_look_back_at_it(tmp_path: Path) -> None:
    silver = learned(tmp_path)
    silver.append(readings(LEARNED, JUDGED))
    scores(silver)
    before = silver.rows(SCORES)
    silver.append([(1, 60 * 80 + 5, 250.0)])
    silver.compute(WINDOWS, SCORES)
    after = silver.rows(SCORES)
    moved = after.join(before, on=["sensor_id", "window_start", "score_id"], how="anti")
    at = START + timedelta(minutes=80)
    (own,) = moved.filter(sensor_id=1, window_start=at).to_dicts()
    assert (own["window_revision"], own["is_anomaly"]) == (1, True)
    assert moved["window_start"].min() == at and moved.height > 1
    assert set(after.join(moved, on="score_id", how="anti")["batch_id"]) <= set(before["batch_id"])
