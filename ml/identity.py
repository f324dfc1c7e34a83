"""The name of a score: which window it judges, and which of the judgements of that window it is."""

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ml.features import FEATURE_COLUMNS
from ml.quantities import SERIES, START

JUDGED = ("window_revision", "score", "threshold", *FEATURE_COLUMNS)
"""What a judgement is made of, besides the model."""

_SERIES_DIGITS = 12
_NO_NUMBER = np.uint64(0x7FF8_0000_0000_0000)


def score_ids(judged: pl.DataFrame, model_sha256: str) -> pl.Series:
    """``<window start>-<series>-<judgement>`` of each row, the last two being hashes.

    Rows of one window share the first two parts. The same judgement has the same id wherever it is computed; one of
    another revision of the window or of those before it, or by another model, has another.

    Args:
        judged: rows with the columns of the series, ``window_start``, ``method`` and ``JUDGED``.
        model_sha256: hash of the model's card; it counts where ``method`` is model.
    """
    by_model = (judged["method"] == "model").fill_null(False).to_numpy()
    state = np.where(by_model, _hash(model_sha256), np.uint64(0))
    for name in JUDGED:
        values = judged[name].cast(pl.Float64).to_numpy()
        bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)
        bits = np.where(np.isnan(values), _NO_NUMBER, bits)
        state = _mixed(np.bitwise_xor(state, bits, dtype=np.uint64))
    return judged.select(
        pl.format(
            "{}-{}-{}",
            pl.col(START).dt.strftime("%Y%m%dT%H%M%SZ"),
            _series_names(judged),
            pl.Series(_hexadecimal(state)),
        ).alias("score_id")
    ).to_series()


def same_window(score_id: str) -> str:
    """What the ids of all judgements of a score's window begin with."""
    return score_id.rpartition("-")[0] + "-"


def _series_names(judged: pl.DataFrame) -> pl.Series:
    series = judged.select(SERIES).unique(maintain_order=True)
    names = [hashlib.sha256("\x1f".join(map(str, row)).encode()).hexdigest()[:_SERIES_DIGITS] for row in series.rows()]
    named = series.with_columns(pl.Series("_name", names, pl.String))
    return judged.select(SERIES).join(named, on=SERIES, how="left", nulls_equal=True, maintain_order="left")["_name"]


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), with its increment."""
    state = state + np.uint64(0x9E37_79B9_7F4A_7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return state ^ (state >> np.uint64(31))


def _hexadecimal(state: npt.NDArray[np.uint64]) -> pl.Series:
    data = pa.py_buffer(state.astype(">u8").tobytes())
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(state), [None, data])
    return pl.Series(fixed.cast(pa.binary())).bin.encode("hex")
