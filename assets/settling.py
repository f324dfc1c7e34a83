"""Whose event time a computed table follows, and how long after it its rows are settled."""

from datetime import timedelta

from assets.lookups import is_row_by_row
from assets.table import Table


def has_senders(table: Table) -> bool:
    """Whether its rows come from senders whose time tells when they are settled."""
    root = table.watermarked
    return root.layer == "silver" and bool(root.sender)


def is_tumbling(table: Table) -> bool:
    """Whether its rows are windows that neither overlap nor move: partial results of which longer ones are made."""
    window = table.window
    return window is not None and window.has_finality and window.slide is None and window.gap is None


def settled_behind(table: Table) -> timedelta:
    """How long after its event time a row of the table is settled, by its sender's time."""
    behind = timedelta(0)
    while table.window is not None:
        window = table.window
        if window.has_finality:
            return behind + window.size + (window.gap or timedelta(0)) + window.lateness
        if not is_row_by_row(table):
            behind += window.bound or timedelta(0)
        table = table.inputs[0]
    return behind
