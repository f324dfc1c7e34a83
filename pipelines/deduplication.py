"""Which parsed rows are new: the first of a key in landing order stays, an equal one is a duplicate, another is a conflict."""

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
    values = list(table.value)
    if existing.is_empty() and not rows.select(pl.struct(key).is_duplicated().any()).item():
        return Deduplicated(rows, 0, _no_conflicts(rows))
    stored = existing.select(*key, pl.struct(values).alias("_first"), pl.lit(True).alias("_stored"))
    judged = (
        rows.sort(_ORDER)
        .join(stored, on=key, how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            _first=pl.coalesce("_first", pl.struct(values).first().over(key)),
            _rank=pl.int_range(pl.len()).over(key),
        )
        .with_columns(
            _is_first=pl.col("_stored").is_null() & (pl.col("_rank") == 0),
            _is_equal=pl.struct(values).eq_missing(pl.col("_first")),
        )
    )
    repeated = judged.filter(~pl.col("_is_first"))
    conflicts = repeated.filter(~pl.col("_is_equal"))
    return Deduplicated(
        judged.filter("_is_first").select(rows.columns),
        repeated.height - conflicts.height,
        _conflicts(table, conflicts),
    )


def _conflicts(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    values = list(table.value)
    told = pl.struct(values).struct.json_encode()
    kept = pl.col("_first").struct.json_encode()
    return rows.select(
        *_ORDER,
        reason=pl.lit("key_conflict"),
        message=pl.format(f"{table.identifier}: a row of this key is here with {{}}; this one says {{}}", kept, told),
    )


def _no_conflicts(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.clear().select(*_ORDER, reason=pl.lit("", pl.String), message=pl.lit("", pl.String))
