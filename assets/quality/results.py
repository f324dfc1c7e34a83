"""quality.results."""

import polars as pl

from assets.table import UTC_TIME, column, declare
from resources.stored_table import Partition

results = declare(
    layer="quality",
    name="results",
    description="""
        One row an expectation and check of a table: whether its recent rows met it, and examples of those that did not.

        Source: the Great Expectations suites, on their schedule and on demand; the pages for people are files beside
        the lakehouse.
    """,
    columns=(
        column("table_name", pl.String, "Table whose rows were checked", required=True),
        column("checked_at", UTC_TIME, "When the check ran", required=True),
        column("position", pl.Int32, "Place of the expectation in its suite, from 0", required=True, minimum=0),
        column("expectation", pl.String, "Type of the expectation, as Great Expectations names it", required=True),
        column("column_names", pl.String, "Columns it speaks of, JSON"),
        column("description", pl.String, "What is expected"),
        column("severity", pl.String, "critical, warning or info", required=True),
        column("is_met", pl.Boolean, "Whether the rows met it", required=True),
        column("rows", pl.Int64, "Rows that were checked", required=True, minimum=0),
        column("unexpected", pl.Int64, "Rows that did not meet it; null for a property of the whole table"),
        column("observed", pl.String, "What was found, as text"),
        column("examples", pl.String, "Some of the rows that did not meet it, JSON"),
        column("error", pl.String, "Why it could not be evaluated; null if it could"),
        column("page", pl.String, "The page for people"),
        column("run_id", pl.String, "Dagster run, or the name of the process"),
    ),
    key=("table_name", "checked_at", "position"),
    time="checked_at",
    partitions=(Partition("checked_at", "day"),),
    kinds=("iceberg", "quality"),
)
