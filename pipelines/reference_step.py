"""Reference content: what is built in is written when it is not what is stored; what a user loaded stays beside it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import polars as pl

from assets.table import Table
from pipelines.context import Context, TableResult
from pipelines.reference_refresh import is_versioned, read_versions, run_refresh
from resources.commit import Commit
from resources.errors import SourceUnavailableError

_CONTENT, _LOADS = "content", "loads"
_LOADED_AT, _MODULE = "loaded_at", "mib_module"


def run_reference(context: Context, table: Table) -> TableResult:
    """Replaces the built-in rows by what the table's function returns, if that differs; a side input is refreshed."""
    if is_versioned(table):
        return run_refresh(context, table)
    result = TableResult(table.identifier)
    if table.function is None:
        return result
    rows = _built_in(context, table.function, table.configuration)
    head = context.lakehouse.head(table.stored)
    frm = head.markers.get(table.identifier, {})
    to = {**frm, _CONTENT: str(rows.hash_rows(seed=0).sum())}
    if frm == to:
        return result
    if frm.get(_LOADS):
        stored = context.lakehouse.read(table.stored).drop("batch_id")
        loaded = stored.filter(pl.col(_LOADED_AT).is_not_null())
        rows = _side_by_side(table, rows.join(loaded.select(_MODULE).unique(), on=_MODULE, how="anti"), loaded)
    result.rows, result.batch_id = rows.height, _replace_all(context, table, rows, frm, to)
    return result


def _built_in(context: Context, function: Callable[..., pl.DataFrame], configuration: str | None) -> pl.DataFrame:
    """What the table's function returns; one that is made of the configuration is given its entries."""
    if configuration is None:
        return function()
    return function([_entry(entry.model_dump()) for entry in getattr(context.config, configuration)])


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the configuration; one that names a file comes with its bytes as ``content``."""
    if (file := entry.get("file")) is None:
        return entry
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SourceUnavailableError(f"{file}: {error.strerror}; secchi.toml names it") from error
    return {**entry, "content": content}


def load_modules(context: Context, table: Table, rows: pl.DataFrame, loaded_at: datetime) -> dict[str, int]:
    """Puts whole modules into a reference table, in the place of what it has of them.

    Returns:
        For each module, how many of its rows are left out, because another module defines the same OID already.

    Raises:
        CommitConflictError: the table was changed at the same time.
    """
    head = context.lakehouse.head(table.stored)
    frm = head.markers.get(table.identifier, {})
    stored = context.lakehouse.read(table.stored).drop("batch_id")
    others = stored.join(rows.select(_MODULE).unique(), on=_MODULE, how="anti")
    loaded = rows.with_columns(pl.lit(loaded_at, table.schema[_LOADED_AT]).alias(_LOADED_AT))
    merged = _side_by_side(table, others, loaded)
    _replace_all(context, table, merged, frm, {**frm, _LOADS: frm.get(_LOADS, 0) + 1})
    left = rows.join(merged.select(*table.key, _MODULE), on=[*table.key, _MODULE], how="anti")
    return dict(left.group_by(_MODULE).len().iter_rows())


def _side_by_side(table: Table, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Both; of the rows with one key the first."""
    return pl.concat([first, second.select(first.columns)]).unique(table.key, keep="first", maintain_order=True)


def _replace_all(
    context: Context, table: Table, rows: pl.DataFrame, frm: dict[str, object], to: dict[str, object]
) -> int:
    head = context.lakehouse.head(table.stored)
    batch_id = head.batch_id + 1
    old = context.lakehouse.files(table.stored)
    files = context.lakehouse.write(table.stored, rows, batch_id)
    summary = {"secchi.run_id": context.run_id}
    context.lakehouse.commit_once(Commit(table.stored, table.identifier, frm, to, batch_id, files, old, summary))
    return batch_id


def read_reference(context: Context, table: Table) -> pl.DataFrame:
    """The rows of a reference table; built-in content is written first where it never was.

    A run of a few chosen tables may leave the reference tables out, and names would stay unresolved for ever.
    """
    if is_versioned(table):
        return read_versions(context, table)
    if _CONTENT not in context.lakehouse.head(table.stored).markers.get(table.identifier, {}):
        run_reference(context, table)
    return context.lakehouse.read(table.stored)


def side_inputs(context: Context, table: Table) -> dict[str, Any]:
    """What a table's function is given beside its rows: whole references as they are now, and users if it takes them.

    ``is_lenient`` says that a field of another type than its column's may stand in ``extra``.

    Raises:
        ConfigurationError: a user's password is not there.
    """
    side: dict[str, Any] = {reference.name: read_reference(context, reference) for reference in table.references}
    if context.mode_of(table) in ("evolve", "discard_value"):
        side["is_lenient"] = True
    return {**side, "users": context.config.trap_users} if table.takes_users else side
