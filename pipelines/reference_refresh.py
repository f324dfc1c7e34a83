"""Side inputs: a source that may have changed is read, and what it says now becomes a version of its table.

Where a source cannot be used the last version stays, and the reason stands in the marker of the table, where the check
and ``secchi status`` find it.
"""

import hashlib
import logging
from datetime import datetime
from typing import Any

import polars as pl

from assets.side_input import VERSION, Versions
from assets.table import Table
from data_quality.contract import apply_contract
from pipelines.context import Context, TableResult
from pipelines.settings.reference import ReferenceConfig
from resources.commit import Commit, Marker
from resources.errors import ConfigurationError, SourceUnavailableError
from resources.reference_files import read_reference_file, version_of
from resources.selection import changes

log = logging.getLogger(__name__)

SINCE = "since"
"""Entry of the marker: the last versions, and since when another row is right by each of them."""
_KEY, _LOOKED, _LOOKED_AT, _PROBLEM = "key", "looked", "looked_at", "problem"
_KEPT_VERSIONS = 50


def is_versioned(table: Table) -> bool:
    """Whether the table is a side input."""
    return isinstance(table.function, Versions)


def source_of(context: Context, table: Table) -> ReferenceConfig | None:
    """Where the rows come from; None for a built-in table that nobody fills."""
    return next((each for each in context.config.reference if each.name == table.name), None)


def marker_of(context: Context, table: Table) -> Marker:
    """Where the side input stands."""
    exists = context.lakehouse.exists(table.stored)  # looking creates no table
    return context.lakehouse.head(table.stored).markers.get(table.identifier, {}) if exists else {}


def version_in(marker: Marker) -> int:
    """The number of the newest version; 0 before the first one."""
    return int(marker.get(VERSION, 0))


def problem_in(marker: Marker) -> str | None:
    """Why the source could not be used when it was last looked at."""
    found: str | None = marker.get(_PROBLEM)
    return found


def changed_since(marker: Marker, version: int) -> datetime | None:
    """The earliest time at which another row is right than by an older version; None: possibly always."""
    told = dict(marker.get(SINCE, []))
    passed = range(version + 1, version_in(marker) + 1)
    if not all(number in told for number in passed):
        return None
    return min((datetime.fromisoformat(told[number]) for number in passed), default=None)


def is_due(context: Context, table: Table) -> bool:
    """Whether the source, or what other tables tell, is another than when it was last looked at; or its time came."""
    source, marker = source_of(context, table), marker_of(context, table)
    return (source is not None and _is_due(context, source, marker)) or _is_told_more(context, table, marker)


def _is_told_more(context: Context, table: Table, marker: Marker) -> bool:
    """Whether a table that tells of the same things has other rows than when it was last looked at."""
    told = [(each.stored, marker.get(each.identifier, 0)) for each in table.references]
    there = [(stored, after) for stored, after in told if context.lakehouse.exists(stored)]
    heads = [(stored, after, context.lakehouse.head(stored).batch_id) for stored, after in there]
    return any(context.lakehouse.files(stored, changes(after, head)) for stored, after, head in heads)


def _is_due(context: Context, source: ReferenceConfig, marker: Marker) -> bool:
    if marker.get(_LOOKED) != _look(source):
        return True
    every = source.looked_at_every
    return every is not None and context.clock() >= datetime.fromisoformat(marker[_LOOKED_AT]) + every


def _look(source: ReferenceConfig) -> str:
    """Changes when the declaration or the file does."""
    told = f"{source!r} {version_of(source.file) if source.file else ''}"
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def run_refresh(context: Context, table: Table) -> TableResult:
    """Looks at the source and at what other tables tell if that is due; commits a version if it says something new."""
    result = TableResult(table.identifier)
    if not is_due(context, table):
        return result
    source, frm = source_of(context, table), marker_of(context, table)
    at = context.clock()
    to = {**frm, _LOOKED: _look(source) if source else "", _LOOKED_AT: at.isoformat(), _PROBLEM: None}
    told = [each for each in table.references if context.lakehouse.exists(each.stored)]
    to |= {each.identifier: context.lakehouse.head(each.stored).batch_id for each in told}
    rows: pl.DataFrame | None = None
    try:
        rows, since = _next_version(context, table, source, frm, at)
        if since is not None:
            number = version_in(frm) + 1
            told = [*frm.get(SINCE, []), [number, since.isoformat()]][-_KEPT_VERSIONS:]
            to |= {VERSION: number, SINCE: told, _KEY: [*_function(table).key]}
        else:
            rows = None
    except (SourceUnavailableError, ConfigurationError) as error:
        to[_PROBLEM] = str(error)
        if to[_PROBLEM] != frm.get(_PROBLEM):
            log.warning("%s: %s; version %d goes on serving", table.identifier, error, version_in(frm))
    result.problem, result.has_looked = to[_PROBLEM], True
    result.batch_id = _commit(context, table, rows, frm, to)
    result.rows = rows.height if rows is not None else 0
    return result


def _function(table: Table) -> Versions:
    assert isinstance(table.function, Versions)
    return table.function


def _next_version(
    context: Context, table: Table, source: ReferenceConfig | None, marker: Marker, at: datetime
) -> tuple[pl.DataFrame, datetime | None]:
    """The table's rows with what the source says now, and since when that differs.

    Raises:
        SourceUnavailableError: the source cannot be used.
        ConfigurationError: a secret is not there, or the key is another than that of the stored rows.
    """
    function = _function(table)
    if (key := marker.get(_KEY)) and key != [*function.key]:
        raise ConfigurationError(
            f"key is {[*function.key]}, but the stored versions have {key}; take another name for the table"
        )
    given = _given(function, source) if source else None
    if function.told:
        given = function.beside(
            given, function.told(**{each.name: _stored(context, each) for each in table.references})
        )
    assert given is not None
    stored = _stored(context, table)
    rows, since = function(stored, given, at, version_in(marker) + 1)
    time = context.config.time
    _, violations = apply_contract(table, rows, skew=time.skew, earliest=time.earliest)
    if violations.height:
        raise SourceUnavailableError(
            f"{violations.height} of {rows.height} rows break the contract: {violations['message'][0]}"
        )
    return rows, since


def _given(function: Versions, source: ReferenceConfig) -> pl.DataFrame:
    if source.file is not None:
        raw = read_reference_file(source.file, source.file_format)
    else:
        from resources.reference_databases import read_reference_query

        raw = read_reference_query(source.database(), source.query, source.table, source.timeout)
    try:
        return function.given(raw, source.valid_from, source.valid_to)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(f"{source.place}: {error}") from error


def _stored(context: Context, table: Table) -> pl.DataFrame:
    exists = context.lakehouse.exists(table.stored)
    return context.lakehouse.read(table.stored) if exists else pl.DataFrame(schema=table.schema)


def _commit(context: Context, table: Table, rows: pl.DataFrame | None, frm: Marker, to: Marker) -> int:
    lakehouse, stored = context.lakehouse, table.stored
    batch_id = lakehouse.head(stored).batch_id + 1
    add: Any = () if rows is None else lakehouse.write(stored, rows, batch_id)
    delete: Any = () if rows is None else lakehouse.files(stored)
    summary = {"secchi.run_id": context.run_id}
    lakehouse.commit_once(Commit(stored, table.identifier, frm, to, batch_id, add, delete, summary))
    return batch_id


def read_versions(context: Context, table: Table) -> pl.DataFrame:
    """The rows of a side input; of one that was never taken in yet, what its source says now, without writing.

    Raises:
        SourceUnavailableError: it has no version, and its source cannot be used.
    """
    source, marker = source_of(context, table), marker_of(context, table)
    if source is None or version_in(marker):
        return _stored(context, table)
    try:
        rows, _ = _next_version(context, table, source, marker, context.clock())
    except (SourceUnavailableError, ConfigurationError) as error:
        raise SourceUnavailableError(f"{table.identifier}: has no version yet: {error}") from error
    return rows
