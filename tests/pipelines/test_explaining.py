"""A score explained: computed again to the last bit, what was corrected since is told, another model is refused."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.gold.anomaly_scores import anomaly_scores
from ml.identity import same_window
from pipelines.cli import main
from pipelines.explaining import BEFORE, Explained, explain, means, write_plot
from pipelines.training import MODEL, train
from resources.commit import Commit
from resources.errors import SecchiError
from resources.model_store import ModelRefusedError
from tests.pipelines.plant import START, Plant, Reading
from tests.pipelines.test_training import GOLD, MINUTES, SCORES, plant_with_windows


def scored(folder: Path) -> Plant:
    """Two sensors with a model; the last window of sensor 0 is far out."""
    plant = plant_with_windows(folder)
    train(plant.context)
    plant.land([Reading(0, 60 * MINUTES + second, 500.0).payload for second in (0, 20, 40)])
    plant.drain()
    plant.now += timedelta(hours=1)
    plant.drain()
    return plant


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return scored(tmp_path_factory.mktemp("still"))


def last(plant: Plant) -> dict[str, Any]:
    at = START + timedelta(minutes=MINUTES)
    (row,) = plant.table(SCORES).filter(pl.col("window_start") == at).to_dicts()
    return row


def explained(plant: Plant, row: dict[str, Any]) -> Explained:
    return explain(plant.open(), row["score_id"])


def correct(plant: Plant, minute: int, value: float) -> None:
    """A late reading of sensor 0."""
    plant.land([Reading(0, 60 * minute + 30, value).payload])
    plant.now += timedelta(minutes=1)
    plant.drain()


def test_every_score_is_computed_again_to_the_last_bit(still: Plant) -> None:
    rows = still.table(SCORES).sort("window_start").to_dicts()
    assert len({row["score_id"] for row in rows}) == len(rows) == 2 * MINUTES + 1
    for row in (*rows[:: len(rows) // 6], rows[-1]):
        told = explained(still, row)
        assert told.recomputed is not None and told.differences == []
        assert (told.recomputed.score, told.recomputed.threshold) == (row["score"], row["threshold"])
        assert told.since == []


def test_contributions_are_those_of_the_row(still: Plant) -> None:
    row = last(still)
    told = explained(still, row)
    assert row["is_alarm"] and told.recomputed is not None
    assert told.recomputed.contributions == json.loads(row["contributions"])


def test_id_is_the_same_in_another_lakehouse_and_another_for_another_verdict(still: Plant, tmp_path: Path) -> None:
    """Where it is computed does not count; the model does."""
    ids = set(plant_with_windows(tmp_path / "a").table(SCORES)["score_id"])
    assert ids == set(plant_with_windows(tmp_path / "b").table(SCORES)["score_id"])
    assert not ids & set(still.table(SCORES)["score_id"])
    assert {same_window(one) for one in ids} < {same_window(one) for one in still.table(SCORES)["score_id"]}


def test_row_that_was_changed_is_told(tmp_path: Path) -> None:
    """The score in the table is not what its features give."""
    plant = scored(tmp_path)
    row = last(plant)
    rows = plant.table(SCORES)
    forged = rows.with_columns(score=pl.when(score_id=row["score_id"]).then(0.5).otherwise("score"))
    lakehouse, stored = plant.context.lakehouse, anomaly_scores.stored
    head = lakehouse.head(stored)
    files = lakehouse.write(stored, forged, head.batch_id + 1)
    commit = Commit(stored, "forger", {}, {"n": 1}, head.batch_id + 1, files, lakehouse.files(stored))
    lakehouse.commit_once(commit)
    assert {"score", "score_id"} <= set(explained(plant, row).differences)


def test_window_that_was_corrected_since_is_told(tmp_path: Path) -> None:
    plant = scored(tmp_path)
    row = last(plant)
    correct(plant, MINUTES, 100.0)
    now = last(plant)
    assert same_window(now["score_id"]) == same_window(row["score_id"]) and now["score_id"] != row["score_id"]
    told = explained(plant, row)
    assert told.row["score"] == row["score"] and told.differences == []
    text = "\n".join(told.since)
    assert f"the window was judged again ({now['score_id']}): score {row['score']:.10g} is {now['score']:.10g}" in text
    assert "revision 0 was judged, it is 1 now" in text
    assert "level" in text
    assert explained(plant, now).since == []


def test_window_before_that_was_corrected_is_told(tmp_path: Path) -> None:
    plant = scored(tmp_path)
    row = last(plant)
    correct(plant, MINUTES - 3, 90.0)
    text = "\n".join(explained(plant, row).since)
    assert "1 other window that it looks back at" in text and "sustained" in text
    assert "revision" not in text.replace("window_revision", "")


def test_model_that_was_changed_is_refused(tmp_path: Path) -> None:
    plant = scored(tmp_path)
    row = last(plant)
    folder = plant.folder / "models" / MODEL / row["model_id"]
    card = (folder / "model.json").read_text()
    (folder / "model.json").write_text(card.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ModelRefusedError, match="the score was computed by"):
        explained(plant, row)
    (folder / "model.json").write_text(card)
    forest = (folder / "forest.skops").read_bytes()
    (folder / "forest.skops").write_bytes(forest[:-1] + bytes([forest[-1] ^ 1]))
    with pytest.raises(ModelRefusedError, match="SHA-256"):
        explained(plant, row)


def test_model_that_is_gone_and_one_that_came_are_told(tmp_path: Path) -> None:
    plant = scored(tmp_path)
    row = last(plant)
    plant.now += timedelta(days=1)
    newer = train(plant.context).model_id
    plant.context.models.use(MODEL, newer)
    assert explained(plant, row).since == [f"the model in use is {newer}"]
    plant.context.models.delete(MODEL, row["model_id"])
    with pytest.raises(SecchiError, match=r"is no longer stored; ml\.keep_models = 5"):
        explained(plant, row)


def test_score_without_a_model_is_compared_alone(tmp_path: Path) -> None:
    plant = plant_with_windows(tmp_path)
    row = plant.table(SCORES).sort("window_start").to_dicts()[-1]
    told = explained(plant, row)
    assert (row["method"], told.model, told.recomputed) == ("robust_z", None, None)
    assert told.since == []


@pytest.mark.parametrize(
    ("score_id", "message"),
    [
        ("", "SCORE_ID must be a value of the column score_id of gold.anomaly_scores or of another .*, got ''"),
        ("20269999T000000Z-" + 12 * "0" + "-" + 16 * "0", "SCORE_ID must be"),
        ("20260301T120000Z-" + 12 * "0" + "-" + 16 * "0", "no table has it"),
    ],
)
def test_score_that_is_none_is_told(still: Plant, score_id: str, message: str) -> None:
    with pytest.raises(SecchiError, match=message):
        explain(still.context, score_id)


def test_replaced_score_without_a_snapshot_names_the_one_that_is(still: Plant) -> None:
    row = last(still)
    with pytest.raises(SecchiError, match=f"of its window is {row['score_id']}"):
        explain(still.context, same_window(row["score_id"]) + 16 * "0")


def test_command_prints_verdict_features_and_plot(
    still: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, row = tmp_path / "secchi.toml", last(still)
    config.write_text(f'[lakehouse]\npath = "{still.folder}"\n')
    png = tmp_path / "why.png"
    assert main(["--config", str(config), "explain", row["score_id"], "--png", str(png)]) == 0
    shown = capsys.readouterr().out
    for text in ("equal to the last bit", "an alarm", "sustained", "◆", "Since then nothing", f"{png}: written"):
        assert text in shown
    assert shown.count("•") == MINUTES and png.exists()


def test_plot_shows_the_window_in_its_place(still: Plant, tmp_path: Path) -> None:
    told = explained(still, last(still))
    values = means(told)
    assert values[BEFORE] == 500.0 and values[BEFORE - MINUTES - 1] is None
    assert sum(value is not None for value in values) == MINUTES + 1
    write_plot(told, tmp_path / "plots" / "score.png")
    assert (tmp_path / "plots" / "score.png").read_bytes().startswith(b"\x89PNG")
    assert told.table.inputs[0].identifier == GOLD
