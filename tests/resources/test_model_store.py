"""Stored models: whole, verified, never pickled."""

import hashlib
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.tree import DecisionTreeClassifier

from resources import model_store
from resources.model_store import ModelRefusedError, ModelStore, StoredModel, Training

NAME = "sensor_windows"
ROWS = np.random.default_rng(0).normal(size=(200, 3))
BASELINES = pl.DataFrame({"unit": ["BAR", "°C"], "level_median": [1.5, None], "threshold": [0.6, 0.7]})
TRAINING = Training(
    snapshot=8423,
    tag="model-2026-01-02",
    trained_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    seed=3,
    rows=200,
    features=("level", "spread", "slope"),
    parameters={"trees": 10, "false_alarm_rate": 0.001},
)


class Unexpected:
    """A type that no forest holds."""


@pytest.fixture(scope="module")
def forest() -> IsolationForest:
    return IsolationForest(n_estimators=10, random_state=3).fit(ROWS)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture
def saved(store: ModelStore, forest: IsolationForest) -> Path:
    return store.root / NAME / store.save(NAME, forest, BASELINES, TRAINING)


def latest(store: ModelStore) -> StoredModel:
    found = store.latest(NAME)
    assert found is not None
    return found


def rewrite_card(directory: Path, change: Any) -> None:
    path = directory / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_model_comes_back_as_it_was_stored(store: ModelStore, forest: IsolationForest, saved: Path) -> None:
    model = ModelStore(store.root).load(NAME, saved.name)
    assert np.array_equal(model.forest.score_samples(ROWS), forest.score_samples(ROWS))
    assert model.baselines.equals(BASELINES)
    assert (model.name, model.model_id, model.training) == (NAME, saved.name, TRAINING)


def test_card_tells_where_the_model_comes_from(saved: Path) -> None:
    card = json.loads((saved / "model.json").read_text())
    assert (card["training"]["snapshot"], card["training"]["tag"], card["training"]["seed"]) == (
        8423,
        "model-2026-01-02",
        3,
    )
    assert card["versions"]["scikit-learn"] and card["versions"]["skops"]
    for file in ("forest.skops", "baselines.parquet"):
        assert card["files"][file] == hashlib.sha256((saved / file).read_bytes()).hexdigest()


def test_nothing_is_pickled(saved: Path) -> None:
    with zipfile.ZipFile(saved / "forest.skops") as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".npy"}
    assert {path.name for path in saved.iterdir()} == {"forest.skops", "baselines.parquet", "model.json"}


def test_latest_is_none_before_the_first_training(store: ModelStore) -> None:
    assert (store.current(NAME), store.latest(NAME)) == (None, None)


def test_latest_is_the_model_stored_last(store: ModelStore, forest: IsolationForest, saved: Path) -> None:
    first = latest(store)
    newer = Training(**{**TRAINING.__dict__, "trained_at": TRAINING.trained_at + timedelta(days=1)})
    newer_id = store.save(NAME, forest, BASELINES, newer)
    assert newer_id > saved.name
    assert (first.model_id, latest(store).model_id, ModelStore(store.root).current(NAME)) == (
        saved.name,
        newer_id,
        newer_id,
    )
    assert store.latest(NAME) is store.latest(NAME)


def test_names_do_not_share_models(store: ModelStore, saved: Path) -> None:
    assert store.latest("interface_rates") is None


def test_deleted_model_is_gone_and_no_other(store: ModelStore, forest: IsolationForest, saved: Path) -> None:
    newer = Training(**{**TRAINING.__dict__, "trained_at": TRAINING.trained_at + timedelta(days=1)})
    newer_id = store.save(NAME, forest, BASELINES, newer)
    (saved.parent / ".gone-0").mkdir()  # what a kill during delete leaves behind
    assert store.ids(NAME) == [saved.name, newer_id]
    store.delete(NAME, saved.name)
    assert store.ids(NAME) == [newer_id]
    assert {path.name for path in saved.parent.iterdir()} == {"current", newer_id}


@pytest.mark.parametrize("file", ["forest.skops", "baselines.parquet"])
def test_changed_file_is_refused(store: ModelStore, saved: Path, file: str) -> None:
    data = bytearray((saved / file).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / file).write_bytes(data)
    with pytest.raises(ModelRefusedError, match=f"{file}: SHA-256 is [0-9a-f]{{64}}, stored was"):
        store.load(NAME, saved.name)


@pytest.mark.parametrize("file", ["forest.skops", "baselines.parquet", "model.json"])
def test_missing_file_is_refused(store: ModelStore, saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(ModelRefusedError, match=file):
        store.latest(NAME)


def test_damaged_card_is_refused(store: ModelStore, saved: Path) -> None:
    (saved / "model.json").write_text("{")
    with pytest.raises(ModelRefusedError, match=r"model\.json: cannot be read"):
        store.latest(NAME)
    (saved / "model.json").write_text("{}")
    with pytest.raises(ModelRefusedError, match=r"model\.json: has no 'files'"):
        store.latest(NAME)


def test_model_of_another_scikit_learn_is_refused(store: ModelStore, saved: Path) -> None:
    rewrite_card(saved, lambda card: card["versions"].update({"scikit-learn": "1.2.3"}))
    with pytest.raises(ModelRefusedError, match=r"made by scikit-learn 1\.2\.3, installed is .*train the model again"):
        store.latest(NAME)


def test_type_that_is_not_trusted_is_refused(store: ModelStore) -> None:
    forest = IsolationForest(n_estimators=2, random_state=0).fit(ROWS)
    forest.note_ = Unexpected()
    model_id = store.save(NAME, forest, BASELINES, TRAINING)
    with pytest.raises(ModelRefusedError, match=r"holds the type '.*Unexpected'; only \['sklearn.tree._tree.Tree'\]"):
        store.load(NAME, model_id)


def test_other_estimator_is_refused(store: ModelStore) -> None:
    tree = DecisionTreeClassifier(random_state=0).fit(ROWS, ROWS[:, 0] > 0)
    model_id = store.save(NAME, tree, BASELINES, TRAINING)
    with pytest.raises(ModelRefusedError, match="holds a DecisionTreeClassifier, not an IsolationForest"):
        store.load(NAME, model_id)


@pytest.mark.parametrize("name", ["", "..", "../other", "a/b", ".hidden", "/absolute"])
def test_name_stays_in_the_store(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelRefusedError, match="must match"):
        store.current(name)
    with pytest.raises(ModelRefusedError, match="must match"):
        store.load(NAME, name)


def test_unknown_model_is_refused(store: ModelStore, saved: Path) -> None:
    with pytest.raises(ModelRefusedError, match="no-such-model"):
        store.load(NAME, "no-such-model")


def test_failed_save_leaves_the_current_model_and_no_trace(
    store: ModelStore, forest: IsolationForest, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_store, "_write_durably", full)
    newer = Training(**{**TRAINING.__dict__, "trained_at": TRAINING.trained_at + timedelta(days=1)})
    with pytest.raises(OSError, match="No space left"):
        store.save(NAME, forest, BASELINES, newer)
    assert {path.name for path in saved.parent.iterdir()} == {"current", saved.name}
    assert latest(store).model_id == saved.name


def test_half_written_model_is_never_seen(store: ModelStore, saved: Path) -> None:
    """What a kill during save leaves behind."""
    draft = saved.parent / ".new-0"
    draft.mkdir()
    (draft / "forest.skops").write_bytes(b"half")
    assert latest(store).model_id == saved.name
