"""Which parsed rows are new: the first of a key stays, an equal one is a duplicate, another is a conflict."""

from dataclasses import dataclass

import polars as pl

from assets.table import Table

_ORDER = ["stream", "sequence", "row"]


@dataclass(frozen=True)
class Deduplicated:
    """``fresh`` rows to append, the number of ``duplicates``, and ``conflicts`` (position, reason, message)."""

    fresh: pl.DataFrame
    duplicates: int
    conflicts: pl.DataFrame


def deduplicate(table: Table, rows: pl.DataFrame, existing: pl.DataFrame) -> Deduplicated:
    """Compares rows with each other and with the stored rows of the same keys.

    Args:
        table: the declaration: ``key`` and ``value``.
        rows: parsed rows with their landing position.
        existing: key and value columns of stored rows; may hold keys that are not in ``rows``.
    """
    key = list(table.key)
    suspects = pl.concat([_repeated(rows.select(key)), existing.select(key)])
    if suspects.is_empty():
        return Deduplicated(rows, 0, _conflicts(table, rows.clear()))
    clear = rows.join(suspects, on=key, how="anti", nulls_equal=True)
    if clear.height == rows.height:
        return Deduplicated(rows, 0, _conflicts(table, rows.clear()))
    judged = _judge(table, rows.join(suspects, on=key, how="semi", nulls_equal=True), existing)
    again = judged.filter(~pl.col("_is_first"))
    conflicts = again.filter(~pl.col("_is_equal"))
    fresh = pl.concat([clear, judged.filter("_is_first").select(rows.columns)])
    return Deduplicated(fresh, again.height - conflicts.height, _conflicts(table, conflicts))


def _repeated(keys: pl.DataFrame) -> pl.DataFrame:
    """The keys that stand more than once."""
    if keys.hash_rows().n_unique() == keys.height:  # a fifth of the cost of the exact answer, and nearly always enough
        return keys.clear()
    return keys.group_by(keys.columns).len().filter(pl.col("len") > 1).drop("len")


def _judge(table: Table, rows: pl.DataFrame, existing: pl.DataFrame) -> pl.DataFrame:
    """Adds the values that stand for each row's key, whether the row is that one, and whether it equals it."""
    key, values = list(table.key), pl.struct(table.value)
    stored = existing.select(*key, values.alias("_first"), pl.lit(True).alias("_stored"))
    joined = rows.sort(_ORDER).join(stored, on=key, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(
        _first=pl.coalesce("_first", values.first().over(key)),
        _is_first=pl.col("_stored").is_null() & (pl.int_range(pl.len()).over(key) == 0),
    ).with_columns(_is_equal=values.eq_missing(pl.col("_first")))


def _conflicts(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    if rows.is_empty():
        return rows.select(*_ORDER, reason=pl.lit("", pl.String), message=pl.lit("", pl.String))
    told = pl.struct(table.value).struct.json_encode()
    kept = pl.col("_first").struct.json_encode()
    return rows.select(
        *_ORDER,
        reason=pl.lit("key_conflict"),
        message=pl.format(f"{table.identifier}: a row of this key is here with {{}}; this one says {{}}", kept, told),
    )
