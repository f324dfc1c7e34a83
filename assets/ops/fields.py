"""ops.fields."""

import polars as pl

from assets.table import UTC_TIME, column, declare

fields = declare(
    layer="ops",
    name="fields",
    description="""
        One row a field of a payload that no declared column takes, and kind of its values: when it was first seen.

        Source: the silver steps, before the rows are handled as `[unknown_fields]` says; bronze keeps every payload.
    """,
    columns=(
        column("table_name", pl.String, "Silver table that reads the payload", required=True),
        column("path", pl.String, "Names from the outermost object on, joined by dots", required=True),
        column("kind", pl.String, "What its values are: number, text or boolean", required=True),
        column("example", pl.String, "The value that was seen first, as JSON, cut to 80 characters", required=True),
        column("mode", pl.String, "What was done then: freeze, evolve, discard_row or discard_value", required=True),
        column("seen_at", UTC_TIME, "When it was first seen", required=True),
    ),
    key=("table_name", "path", "kind"),
    kinds=("iceberg", "ops"),
)
