"""Functions that may need much of the past, and mostly need the last of it."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import polars as pl

from resources.selection import Where


class LookBack(NamedTuple):
    """How the input of a computed table is read when what a row depends on mostly lies near.

    Of the input before a span, all rows of the last ``near`` are read, and of those further back the ones that
    ``beside`` asks for. A row that depends on nothing else before its ``since`` (a column of it) is right then, if
    that lies at most ``trusted`` before the span. A series with any other row is computed from all of its input.

    Attributes:
        near: how far back all rows are read.
        trusted: how far back, of that, what is computed depends on no row further back but those asked for.
        since: the column that tells from when on all input counts; null where nothing was found.
        beside: the rows near in, conditions on the rows further back out.
    """

    near: timedelta
    trusted: timedelta
    since: str
    beside: Callable[[pl.DataFrame], tuple[Where, ...]]
