"""Values of a side input in the types that its table declares: nothing is guessed, rounded or dropped."""

from collections.abc import Mapping

import polars as pl

from assets.expressions import nearest
from resources.errors import SourceUnavailableError
from resources.strict_model import shown

_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")


def typed(raw: pl.DataFrame, origins: Mapping[str, str], types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The columns of ``origins`` (name to name in the source) in their types; an empty text is no value.

    Raises:
        SourceUnavailableError: a column is missing, or a value cannot be of its type.
    """
    return raw.select(_typed(raw, origin, types[name]).alias(name) for name, origin in origins.items())


def _typed(raw: pl.DataFrame, name: str, dtype: pl.DataType) -> pl.Series:
    if name not in raw.columns:
        raise SourceUnavailableError(f"there is no column {name!r}; {nearest(name, raw.columns)}")
    values = raw[name]
    if values.dtype == pl.String:
        values = raw.select(pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name))).to_series()
    if values.dtype == dtype:
        return values
    if values.dtype == pl.Null:
        return values.cast(dtype)
    found = _cast(values, dtype)
    is_lost = values.is_not_null() if found is None else values.is_not_null() & found.is_null()
    if found is None or is_lost.any():
        row = is_lost.arg_true()[0]
        raise SourceUnavailableError(
            f"column {name!r}: {shown(values[row])} in row {row + 1} is no {_told(dtype)} "
            f"({is_lost.sum()} of {values.len()} rows)"
        )
    return found


def _cast(values: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    """The values in another type, null where that cannot be; None if that is so of all of them."""
    if values.dtype == pl.String:
        return _of_text(values, dtype)
    if dtype == pl.String:
        return values.cast(pl.String) if values.dtype.is_integer() or values.dtype == pl.Boolean else None
    if dtype == pl.Boolean and values.dtype.is_integer():  # databases that know no booleans
        return pl.select(pl.when(values.is_in([0, 1])).then(values == 1)).to_series()
    if values.dtype.is_numeric() and dtype.is_numeric():
        found = values.cast(dtype, strict=False)
        return (
            pl.select(pl.when(found.cast(values.dtype, strict=False) == values).then(found)).to_series()
            if (dtype.is_integer())
            else found
        )
    if values.dtype.is_temporal() and dtype.is_temporal() and values.dtype != pl.Time and values.dtype != pl.Duration:
        has_zone = isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None
        if dtype == pl.Date:
            return values.cast(pl.Date) if not has_zone else None
        local = values.cast(pl.Datetime("us"))
        return values.cast(dtype) if has_zone else local.dt.replace_time_zone("UTC")
    return None


def _of_text(values: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    text = values.str.strip_chars()
    if dtype == pl.Boolean:
        lower = pl.lit(text.str.to_lowercase())
        is_true, is_false = lower.is_in(_TRUE), lower.is_in(_FALSE)
        return pl.select(pl.when(is_true).then(True).when(is_false).then(False)).to_series()
    if dtype.is_integer() or dtype.is_float():
        return text.cast(dtype, strict=False)
    if dtype == pl.Date:
        return text.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(dtype, pl.Datetime):
        return _of_time(text, dtype)
    return None


def _of_time(text: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """ISO 8601 (RFC 3339), a space for the T accepted; without an offset it is UTC, without a time it is midnight."""
    spelled = text.str.replace(" ", "T", literal=True).str.replace(r"[Zz]$", "+00:00")
    whole = spelled.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
    timed = whole.str.replace(r"T(\d\d:\d\d)([+-]|$)", "T${1}:00${2}")
    zoned = timed.str.replace(r"(T[\d:.]+)$", "${1}+00:00")
    return zoned.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False).cast(dtype)


def _told(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "whole number that fits"
    if dtype.is_float():
        return "number"
    if isinstance(dtype, pl.Datetime):
        return "time like 2026-03-01T12:00:00Z"
    return {pl.String(): "text", pl.Boolean(): "true or false", pl.Date(): "date like 2026-03-01"}.get(
        dtype, str(dtype)
    )
