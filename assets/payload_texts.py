"""Payloads as texts, the grammar of plain JSON, and queries over many of them at once.

Nearly all messages are plain. A silver table reads those by a query, all at once, and every other one exactly, one by
one (``assets.json_payload``), which decides what is right. The grammar here allows only what both read alike: what
DuckDB would take leniently (trailing commas, NaN, 12.5 or true as an integer) never reaches it, nor does deep nesting.
"""

from functools import cache

import duckdb
import polars as pl
import pyarrow as pa

from assets.expressions import spill_folder

SPACE = r"[ \t\r\n]*"
# Numbers are as long as a float or an int64 surely holds; longer ones are read by the slow path.
INTEGER = r"-?(?:0|[1-9][0-9]{0,17})"
NUMBER = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?(?:[eE][+-]?[0-9]{1,2})?"
TEXT = r'"[^"\\\x00-\x1f]*"'
_MORSEL = 2**16


def members(*member_patterns: str) -> str:
    """Pattern of a JSON object that has at least one member and none but these."""
    one = f"(?:{'|'.join(member_patterns)})"
    return rf"\{{{SPACE}{one}(?:{SPACE},{SPACE}{one})*{SPACE}\}}"


def member(names: str, value: str) -> str:
    """Pattern of one member of a JSON object."""
    return rf'"(?:{names})":{SPACE}{value}'


def whole(pattern: str) -> str:
    """Pattern of a text that is this and nothing else but blanks around it."""
    return f"^{SPACE}{pattern}{SPACE}$"


def ask(query: str, payloads: pl.Series, **parameters: str) -> pl.DataFrame:
    """Runs a query over the table ``messages``, whose one column is ``payload``, in its order."""
    arrow = payloads.to_frame("payload").to_arrow(compat_level=pl.CompatLevel.newest())
    morsels = pa.Table.from_batches(arrow.to_batches(max_chunksize=_MORSEL), arrow.schema)
    with _database().cursor() as connection:
        connection.register("messages", morsels)
        return pl.DataFrame(connection.sql(query, params=parameters).to_arrow_table())


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """The database in memory behind every query: opening one takes as long as reading some thousand payloads."""
    threads = pl.thread_pool_size()
    return duckdb.connect(
        config={"threads": threads, "preserve_insertion_order": True, "temp_directory": spill_folder()}
    )


def _texts(payloads: pl.Series) -> pl.Series:
    try:
        return payloads.cast(pl.String)
    except pl.exceptions.ComputeError:  # one payload that is not UTF-8 fails the cast of all
        return ask("select try(decode(payload)) as payload from messages", payloads).to_series()


def json_texts(payloads: pl.Series) -> pl.Series:
    """The payloads as text; null where one is not UTF-8.

    The text of a Python dict without double quotes and escapes becomes JSON by its quotes alone.
    """
    texts = _texts(payloads)
    is_single_quoted = ~texts.str.contains(r'["\\]')
    if not is_single_quoted.any():
        return texts
    return (
        texts.to_frame("text")
        .select(
            pl.when(is_single_quoted).then(pl.col("text").str.replace_all("'", '"', literal=True)).otherwise("text")
        )
        .to_series()
    )
