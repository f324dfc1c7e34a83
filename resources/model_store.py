"""Trained anomaly models on disk: written whole, verified when read, never pickled.

Layout: ``<root>/<name>/<model_id>/`` holds ``forest.skops``, ``baselines.parquet`` and ``model.json`` (training,
features, library versions and the SHA-256 of the other two); ``<root>/<name>/current`` holds the id of the model in
use. A model is immutable: it appears by one rename, and ``current`` is replaced by another.
"""

import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from resources.errors import SecchiError
from resources.landing import fsync_directory

TRUSTED_TYPES = ("sklearn.tree._tree.Tree",)
"""What a forest may hold beyond the types that skops trusts by itself."""

_FOREST, _BASELINES, _CARD, _CURRENT = "forest.skops", "baselines.parquet", "model.json", "current"
_LIBRARIES = ("scikit-learn", "skops", "numpy", "polars")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class ModelRefusedError(SecchiError):
    """A stored model is not used: damaged, not to be trusted, or made by another library version; train again."""


@dataclass(frozen=True)
class Training:
    """Where a model comes from.

    Attributes:
        snapshot: id of the Iceberg snapshot that it was trained on.
        tag: tag that keeps that snapshot from expiring.
        trained_at: when, UTC.
        seed: of the random generator.
        rows: number of windows it learned from.
        features: names of the forest's inputs, in order.
        parameters: what else was chosen (trees, false_alarm_rate, ...); JSON values.
    """

    snapshot: int
    tag: str
    trained_at: datetime
    seed: int
    rows: int
    features: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredModel:
    """A model as it stands in the store; ``sha256`` is the hash of its card, which holds those of its files."""

    name: str
    model_id: str
    forest: Any
    baselines: pl.DataFrame
    training: Training
    sha256: str = ""


def _checked(kind: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ModelRefusedError(f"model store: {kind} must match {_NAME.pattern}, got {name!r}")
    return name


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _forest_bytes(forest: Any) -> bytes:
    import skops.io

    data: bytes = skops.io.dumps(forest)
    return data


def _load_forest(path: Path, data: bytes, is_shipped: bool) -> Any:
    import skops.io
    from sklearn.ensemble import IsolationForest

    found = skops.io.get_untrusted_types(data=data)
    if strange := sorted(set(found) - set(TRUSTED_TYPES)):
        raise ModelRefusedError(f"{path}: holds the type {strange[0]!r}; only {list(TRUSTED_TYPES)} are trusted")
    forest = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
    if is_shipped and not isinstance(forest, IsolationForest):
        raise ModelRefusedError(f"{path}: holds a {type(forest).__name__}, not an IsolationForest")
    return forest


def _parquet_bytes(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_parquet(sink)
    return sink.getvalue()


class ModelStore:
    """The models under one directory. ``latest`` keeps the last model it read in memory, as models never change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._loaded: dict[str, StoredModel] = {}

    def save(
        self, name: str, forest: Any, baselines: pl.DataFrame, training: Training, *, is_current: bool = True
    ) -> str:
        """Stores a model and, unless it is only a challenger, makes it the current one; durable when this returns.

        Args:
            name: what the model judges, for example ``sensor_windows``.
            forest: a fitted ``sklearn.ensemble.IsolationForest``.
            baselines: what is usual in each series, and its threshold.
            training: where the model comes from.
            is_current: whether it is put to use.

        Returns:
            The model's id: its time of training and the start of its hash.
        """
        files = {_FOREST: _forest_bytes(forest), _BASELINES: _parquet_bytes(baselines)}
        hashes = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        model_id = f"{training.trained_at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{hashes[_FOREST][:12]}"
        card = {
            "name": name,
            "model_id": model_id,
            "training": {**asdict(training), "trained_at": training.trained_at.astimezone(UTC).isoformat()},
            "versions": {library: version(library) for library in _LIBRARIES},
            "files": hashes,
        }
        files[_CARD] = json.dumps(card, indent=2).encode()
        directory = self.root / _checked("name", name)
        self._place(directory, model_id, files)
        if is_current:
            self._set_current(directory, model_id)
        return model_id

    def use(self, name: str, model_id: str) -> None:
        """Makes a stored model the current one.

        Raises:
            ModelRefusedError: see ``load``.
        """
        self.load(name, model_id)
        self._set_current(self.root / name, model_id)

    def _place(self, directory: Path, model_id: str, files: Mapping[str, bytes]) -> None:
        draft = directory / f".new-{uuid.uuid4()}"
        draft.mkdir(parents=True)
        try:
            for file, data in files.items():
                _write_durably(draft / file, data)
            fsync_directory(draft)
            draft.rename(directory / model_id)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        for path in (directory, self.root, self.root.parent):
            fsync_directory(path)

    def _set_current(self, directory: Path, model_id: str) -> None:
        draft = directory / f"{_CURRENT}.new"
        _write_durably(draft, model_id.encode())
        draft.rename(directory / _CURRENT)
        fsync_directory(directory)

    def current(self, name: str) -> str | None:
        """The id of the model in use, or None if ``name`` was never trained."""
        path = self.root / _checked("name", name) / _CURRENT
        return path.read_text().strip() if path.exists() else None

    def ids(self, name: str) -> list[str]:
        """The ids of the stored models of ``name``, oldest first."""
        return sorted(path.parent.name for path in (self.root / _checked("name", name)).glob(f"[!.]*/{_CARD}"))

    def delete(self, name: str, model_id: str) -> None:
        """Deletes a model. It disappears by one rename, so nobody sees half of it."""
        directory = self.root / _checked("name", name)
        gone = directory / f".gone-{uuid.uuid4()}"
        (directory / _checked("model id", model_id)).rename(gone)
        fsync_directory(directory)
        for left in directory.glob(".gone-*"):  # of a deletion that was killed, too
            shutil.rmtree(left)

    def latest(self, name: str) -> StoredModel | None:
        """The model in use, or None if ``name`` was never trained.

        Raises:
            ModelRefusedError: see ``load``.
        """
        model_id = self.current(name)
        if model_id is None:
            return None
        known = self._loaded.get(name)
        if known is None or known.model_id != model_id:
            known = self._loaded[name] = self.load(name, model_id)
        return known

    def load(self, name: str, model_id: str) -> StoredModel:
        """Reads one model.

        Raises:
            ModelRefusedError: it is not there, a file is missing or has another hash than when it was stored, it holds
                a type that is not trusted, or it was made by another version of scikit-learn.
        """
        directory = self.root / _checked("name", name) / _checked("model id", model_id)
        card = _read_card(directory)
        _check_version(directory, card)
        is_shipped = "detector" not in card["training"]["parameters"]
        forest = _load_forest(directory / _FOREST, _verified(directory, _FOREST, card), is_shipped)
        baselines = pl.read_parquet(_verified(directory, _BASELINES, card))
        facts = {**card["training"], "trained_at": datetime.fromisoformat(card["training"]["trained_at"])}
        training = Training(**{**facts, "features": tuple(facts["features"])})
        return StoredModel(name, model_id, forest, baselines, training, card["sha256"])


def _read_card(directory: Path) -> dict[str, Any]:
    path = directory / _CARD
    try:
        data = path.read_bytes()
        card: dict[str, Any] = json.loads(data)
    except (OSError, ValueError) as error:
        raise ModelRefusedError(f"{path}: cannot be read ({error}); train the model again") from error
    if missing := sorted({"training", "versions", "files"} - set(card)):
        raise ModelRefusedError(f"{path}: has no {missing[0]!r}; train the model again")
    return {**card, "sha256": hashlib.sha256(data).hexdigest()}


def _check_version(directory: Path, card: Mapping[str, Any]) -> None:
    made, here = card["versions"].get("scikit-learn"), version("scikit-learn")
    if made != here:
        raise ModelRefusedError(
            f"{directory}: made by scikit-learn {made}, installed is {here}; scores of one version do not hold in "
            "another, train the model again"
        )


def _verified(directory: Path, file: str, card: Mapping[str, Any]) -> bytes:
    path = directory / file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelRefusedError(f"{path}: {error.strerror}; train the model again") from error
    expected, found = card["files"].get(file), hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ModelRefusedError(f"{path}: SHA-256 is {found}, stored was {expected}; train the model again")
    return data
