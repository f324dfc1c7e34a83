"""The detector that ships: an isolation forest over the z-scores of every series.

Liu, Ting and Zhou, "Isolation Forest", ICDM 2008. scikit-learn's ``predict`` and ``contamination`` decide nothing here:
they know one threshold for all series (``ml.calibration`` decides).

A detector is a module with the two functions ``fit`` and ``score`` of this one; ``ml.detector`` in secchi.toml names
another. What ``fit`` returns is stored by skops, so it must be made of types that skops trusts.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.quantities import FEATURES, SMOOTHED, Floats

INPUTS = (*FEATURES, "distance", "distance", *("lasting_distance",) * 4)
"""What the forest sees: the z-scores, their Euclidean norm, and the norm of those that look over many windows.

A tree picks the quantity of each split at random, so a step in one quantity of eleven hardly shows; the norms, given
several times, make every fault show in two of seventeen splits and a lasting one in six.
"""

_LASTING = tuple(FEATURES.index(name) for name in SMOOTHED)
_MAX_SAMPLES = 2048
_MOST_ROWS = 250_000
"""More rows than this, evenly spaced, would tell 100 trees of ``_MAX_SAMPLES`` rows nothing but cost memory."""

_OUTLYING_SHARE = 0.1
_OUTLYING_MIN = 32
_OUTLYING_FURTHEST = 100.0
_PART = 100_000
_THREADS = 2


def _inputs(z_scores: Floats) -> npt.NDArray[np.float32]:
    """The forest's input, a column for each of ``INPUTS``; a missing z-score counts as usual (0).

    asinh leaves small z-scores as they are and keeps a few huge ones from taking most of the forest's random splits.
    """
    known = np.nan_to_num(z_scores)
    distance = np.arcsinh(np.sqrt(np.square(known).sum(axis=1)))
    lasting = np.arcsinh(np.sqrt(np.square(known[:, _LASTING]).sum(axis=1)))
    return np.column_stack([np.arcsinh(known), distance, distance, *(lasting,) * 4]).astype(np.float32)


def _outlying(windows: int, seed: int) -> Floats:
    """Made-up windows, each far out in one quantity, that the trees are grown with.

    A tree has no splits beyond the values it saw: without these, a window 30 sigma away gets the score of the training
    window that is furthest out, and no alarm. They do not count in the calibration.
    """
    random = np.random.default_rng(seed)
    count = max(_OUTLYING_MIN, int(windows * _OUTLYING_SHARE))
    z_scores = random.normal(size=(count, len(FEATURES)))
    furthest = np.arcsinh(_OUTLYING_FURTHEST)
    far = np.sinh(random.uniform(-furthest, furthest, count))
    z_scores[np.arange(count), random.integers(0, len(FEATURES), count)] = far
    return z_scores


def fit(z_scores: Floats, *, trees: int, seed: int) -> Any:
    """Grows a forest; the same rows, arguments and library versions give the same forest.

    Args:
        z_scores: normal windows, a row each and a column for each of ``ml.quantities.FEATURES``; NaN where missing.
        trees: number of trees.
        seed: of the random splits.
    """
    from sklearn.ensemble import IsolationForest

    some = z_scores[:: max(1, -(-len(z_scores) // _MOST_ROWS))]
    grown_on = _inputs(np.concatenate([some, _outlying(len(some), seed)]))
    samples = min(_MAX_SAMPLES, len(grown_on))
    return IsolationForest(n_estimators=trees, max_samples=samples, random_state=seed).fit(grown_on)


def score(forest: Any, z_scores: Floats) -> Floats:
    """Scores in (0, 1]; around 0.5 and below is usual. They equal ``-forest.score_samples`` to the last bit.

    The rows are shared among threads, each row's trees are added up in order by one: scikit-learn's own threads would
    add them in any order, and the last bits would vary. Several threads may not call its ``score_samples`` at once, as
    that swaps the warning filters of the process.
    """
    if not len(z_scores):
        return np.empty(0)
    trees = [(tree.tree_, _path_lengths(tree.tree_)) for tree in forest.estimators_]
    usual = len(trees) * float(_average_path_length(np.array([forest.max_samples_]))[0])
    parts = np.array_split(z_scores, -(-len(z_scores) // _PART))
    if len(parts) == 1:
        return _score(trees, usual, z_scores)
    with ThreadPoolExecutor(_THREADS) as threads:
        return np.concatenate(list(threads.map(lambda part: _score(trees, usual, part), parts)))


def _score(trees: list[tuple[Any, Floats]], usual: float, z_scores: Floats) -> Floats:
    inputs = _inputs(z_scores)
    # Neighbours that are about as unusual mostly take the same branches, which the processor then foresees.
    order = np.argsort(inputs[:, -1])
    sorted_inputs, lengths, scores = inputs[order], np.zeros(len(order)), np.empty(len(order))
    for tree, path_lengths in trees:
        lengths += path_lengths[tree.apply(sorted_inputs)]
    scores[order] = 2.0 ** -(lengths / usual)
    return scores


def _path_lengths(tree: Any) -> Floats:
    """How many splits lead to each node, and how many more would part the rows that it was grown with, on average."""
    return np.asarray(tree.compute_node_depths() + _average_path_length(tree.n_node_samples) - 1.0)


def _average_path_length(rows: npt.NDArray[np.integer[Any]]) -> Floats:
    """The average path length of an unsuccessful search in a tree of so many rows (Liu et al., section 2)."""
    count = np.maximum(rows, 3).astype(np.float64)
    many = 2.0 * (np.log(count - 1.0) + np.euler_gamma) - 2.0 * (count - 1.0) / count
    return np.where(rows > 2, many, np.where(rows == 2, 1.0, 0.0))
