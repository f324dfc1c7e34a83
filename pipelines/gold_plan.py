"""What a computed table has to do next: the spans that new input touches, requested rebuilds, windows that are due."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import polars as pl

from assets.lookups import taken_newest
from assets.ops.requests import requests
from assets.ops.watermarks import watermarks
from assets.table import Table, Window
from assets.windowing import END, START
from pipelines.context import Context
from pipelines.reference_refresh import changed_since, is_versioned, marker_of, version_in
from pipelines.silver_step import sender_of
from pipelines.spans import READ_HIGH, READ_LOW, combined, no_spans, touched, with_reach
from resources.commit import Commit, Marker
from resources.file_index import bounds
from resources.selection import FAR_FUTURE, FAR_PAST, Among, Ranges, Where, changes, coalesce

BATCH_ROWS = 1_000_000
"""Input rows of one gold batch at the most (more only if one input batch is larger)."""

DEFINITION, REBUILD = "definition", "rebuild"
"""Entries of a marker: the definition that the rows were computed by, and how far a rebuild has come."""


_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class GoldPlan:
    """The marker before and after, the spans to compute again, and the windows whose time has come."""

    frm: Marker
    to: Marker
    batch_id: int
    spans: pl.DataFrame
    due: pl.DataFrame
    has_more: bool


def window_of(table: Table) -> Window:
    """The table's window."""
    assert table.window is not None
    return table.window


def plan_gold(context: Context, table: Table) -> GoldPlan:
    """Lists what to compute."""
    lakehouse = context.lakehouse
    head = lakehouse.head(table.stored)
    frm: Marker = head.markers.get(table.identifier, {})
    to: Marker = {}
    if table.definition:
        to[DEFINITION] = table.definition
        if frm and frm.get(DEFINITION) != table.definition:
            _ask_for_rebuild(context, table, DEFINITION, table.definition, None)
    _follow_references(context, table, frm, to)
    parts, has_more = [], False
    for source in table.inputs:
        after, newest = frm.get(source.identifier, 0), lakehouse.head(source.stored).batch_id
        until = lakehouse.batch_within(source.stored, after, newest, BATCH_ROWS)
        to[source.identifier], has_more = until, has_more or until < newest
        if until > after:
            parts.append(_touched_by(context, table, source, changes(after, until)))
    rebuilt = _rebuild(context, table, frm, to)
    spans = combined(table, [p for p in (*parts, rebuilt) if not p.is_empty()])
    has_more = has_more or REBUILD in to
    return GoldPlan(frm, to, head.batch_id + 1, spans, due_windows(context, table), has_more)


def _touched_by(context: Context, table: Table, source: Table, where: Ranges) -> pl.DataFrame:
    time = str(source.time)
    columns = list(dict.fromkeys([*table.series, time]))
    rows = context.lakehouse.read(source.stored, where, *input_conditions(table), columns=columns)
    times = rows.select(*table.series, at=time)
    return touched(table, times, _sessions_near(context, table, times))


def input_conditions(table: Table) -> list[Where]:
    """Which rows of the input count."""
    return [Among("is_final", [True])] if table.final_only else []


def _sessions_near(context: Context, table: Table, times: pl.DataFrame) -> pl.DataFrame:
    """The stored sessions that rows at these times may touch, and those that those may be cut from."""
    window, columns = window_of(table), [*table.series, START, END]
    if window.gap is None:
        return pl.DataFrame()
    if times.is_empty():
        return pl.DataFrame(schema={c: table.schema[c] for c in columns})
    before, behind = 2 * window.size + 3 * window.gap, window.size + 3 * window.gap
    cells = times["at"].dt.truncate("1m").unique().sort().to_list()
    near = Ranges(START, coalesce([(c - before, c + timedelta(minutes=1) + behind) for c in cells]))
    rows = context.lakehouse.read(table.stored, near, columns=[*columns, "is_retracted"])
    live = rows.filter(~pl.col("is_retracted").fill_null(False)).select(columns)
    return live.join(times.select(table.series).unique(), on=list(table.series), how="semi", nulls_equal=True)


# --- rebuilds ----------------------------------------------------------------------------------------------------


def _follow_references(context: Context, table: Table, frm: Marker, to: Marker) -> None:
    """Enters the versions of side inputs into ``to``; where one is new, asks for the rows that it is right for."""
    for reference in filter(is_versioned, table.references):
        marker, name = marker_of(context, reference), reference.identifier
        to[name], known = version_in(marker), frm.get(name)
        if known is None or known == to[name]:
            continue  # the first batch, or a new lookup: then the definition is another, and all rows are asked for
        since = None if taken_newest(table, reference) else changed_since(marker, known)
        reach = window_of(table).behind
        low = since - reach if since and since - FAR_PAST > reach else None
        _ask_for_rebuild(context, table, name, to[name], low)


def _ask_for_rebuild(context: Context, table: Table, cause: str, state: Any, low: datetime | None) -> None:
    """Asks for the rows from ``low`` on again, once a state of the cause."""
    stored, producer = requests.stored, f"{table.identifier}/{cause}"
    head = context.lakehouse.head(stored)
    frm, to = head.markers.get(producer, {}), {cause: state}
    if frm == to:
        return
    row = pl.DataFrame(
        {
            "request_id": [str(uuid5(NAMESPACE_URL, f"{producer}/{state}/{head.batch_id}"))],
            "table_name": [table.identifier],
            "kind": ["rebuild"],
            "selection": [json.dumps({"from": low.isoformat() if low else None, "to": None})],
            "requested_at": [context.clock()],
        }
    )
    files = context.lakehouse.write(stored, row, head.batch_id + 1)
    context.lakehouse.commit_once(Commit(stored, producer, frm, to, head.batch_id + 1, files))


def _rebuild(context: Context, table: Table, frm: Marker, to: Marker) -> pl.DataFrame:
    """The next share of the rebuilds that are asked for, as spans; enters into ``to`` how far that goes."""
    state = frm.get(REBUILD)
    asked = frm.get(requests.identifier, 0)
    until = state["until"] if state else context.lakehouse.head(requests.stored).batch_id
    to[requests.identifier] = until
    wanted = _asked_ranges(context, table, asked, until)
    if not wanted:
        return no_spans(table)
    at = datetime.fromisoformat(state["at"]) if state else wanted[0][0]
    low, high, is_last = share(context, table, max(at, wanted[0][0]), wanted[-1][1])
    if not is_last:
        to[requests.identifier] = asked
        to[REBUILD] = {"until": until, "at": high.isoformat()}
    ranges = [(max(low, a), min(high, b)) for a, b in wanted if a < high and low < b]
    return spans_of(context, table, ranges)


def _asked_ranges(context: Context, table: Table, asked: int, until: int) -> list[tuple[datetime, datetime]]:
    if asked >= until:
        return []
    rows = context.lakehouse.read(requests.stored, changes(asked, until))
    mine = rows.filter((pl.col("table_name") == table.identifier) & (pl.col("kind") == "rebuild"))
    selections = map(json.loads, mine["selection"])
    return coalesce([(_utc(s.get("from")) or FAR_PAST, _utc(s.get("to")) or FAR_FUTURE) for s in selections])


def _utc(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def share(context: Context, table: Table, low: datetime, high: datetime) -> tuple[datetime, datetime, bool]:
    """The first part of [low, high) that holds about a batch of input rows, and whether it is the last."""
    window, counted = window_of(table), []
    for source in (*table.inputs, table):
        iceberg = context.lakehouse.table(source.stored, refresh=True)
        for file in context.lakehouse.files(source.stored):
            found = bounds(iceberg, file, str(source.time))
            if found is not None and found[0] < high and low <= found[1] + window.before:
                counted.append((found[0], found[1], file.record_count if source is not table else 0))
    if not counted:
        return high, high, True
    low = max(low, min(c[0] for c in counted) - window.before - window.size)
    high = min(high, max(c[1] for c in counted) + window.behind + _MICROSECOND)
    rows = 0
    for first, _, count in sorted(counted):
        if rows and rows + count > BATCH_ROWS and first > low:
            return low, min(first, high), first >= high
        rows += count
    return low, max(low, high), True


def spans_of(context: Context, table: Table, ranges: list[tuple[datetime, datetime]]) -> pl.DataFrame:
    """Every series that has input or rows in the ranges, with each of them."""
    window, series = window_of(table), list(table.series)
    parts = [no_spans(table)]
    for low, high in ranges:
        found = [context.lakehouse.read(table.stored, Ranges(str(table.time), [(low, high)]), columns=series)]
        near = (low - window.before, high + window.behind)
        for source in table.inputs:
            found.append(context.lakehouse.read(source.stored, Ranges(str(source.time), [near]), columns=series))
        edges: dict[str, Any] = {"low": pl.lit(low, pl.Datetime("us", "UTC")), "high": pl.lit(high - _MICROSECOND)}
        parts.append(with_reach(window, pl.concat(found).unique().with_columns(**edges)))
    return pl.concat(parts, how="vertical_relaxed")


# --- finality ----------------------------------------------------------------------------------------------------


def due_windows(context: Context, table: Table) -> pl.DataFrame:
    """The stored rows that are not final although their sender's watermark has passed end and lateness.

    Of episodes: the pending ones that have lasted long enough to be raised. A sender that has been silent for
    ``time.idle`` is taken to have come to the present.
    """
    window = window_of(table)
    if not (window.has_finality or window.has_episodes) or not context.lakehouse.exists(table.stored):
        return pl.DataFrame(schema=table.schema)
    if window.has_episodes:
        open_ones = context.lakehouse.read(table.stored, Among("is_open", [True]))
        waiting = open_ones.filter(pl.col("raised_at").is_null())
    else:
        waiting = context.lakehouse.read(table.stored, Among("is_final", [False]))
    waiting = waiting.filter(~pl.col("is_retracted").fill_null(False))
    return waiting.filter(has_passed(context, table, waiting))


def has_passed(context: Context, table: Table, rows: pl.DataFrame) -> pl.Series:
    """For each row, whether its end and lateness are behind its sender's watermark.

    The end is that of the window, or of the time that an episode must last to be raised. A series of several senders
    has come as far as the one that is farthest behind.
    """
    source, window = table.watermarked, window_of(table)
    named = tuple(takewhile(table.series.__contains__, source.sender))
    known = context.lakehouse.read(watermarks.stored, Among("source", [source.identifier]))
    now = context.clock()
    is_idle = pl.col("received_at") + context.config.time.idle <= now
    reached = pl.when(is_idle).then(pl.max_horizontal("observed_at", pl.lit(now))).otherwise("observed_at")
    sender = pl.col("sender")
    if named != source.sender:  # of the parts, only the last may hold a "/"
        sender = sender.str.split("/").list.head(len(named)).list.join("/")
    marks = known.select(sender, reached=reached).group_by("sender").agg(pl.col("reached").min())
    end = (pl.col(str(table.time)) + window.size if window.has_episodes else pl.col(END)) + window.lateness
    ends = rows.select(end=end, sender=sender_of(replace(source, sender=named)))
    joined = ends.join(marks, on="sender", how="left", maintain_order="left")
    return joined.select((pl.col("end") <= pl.col("reached")).fill_null(False)).to_series()


def read_ranges(spans: pl.DataFrame) -> list[tuple[datetime, datetime]]:
    """The input of the spans as half-open ranges."""
    edges = spans.select(READ_LOW, pl.col(READ_HIGH) + _MICROSECOND).unique()
    return coalesce(edges.iter_rows())
