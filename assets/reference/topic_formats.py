"""reference.topic_formats."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from assets.table import column, table


@table(
    layer="reference",
    columns=(
        column("position", pl.Int64, "Place in secchi.toml; the first that matches a topic decides", required=True),
        column("topic_filter", pl.String, "MQTT topic filter", required=True),
        column("format", pl.String, "json, python-dict, msgpack, csv or number", required=True),
        column("time_field", pl.String, "Field that holds the sender's time; null: the time is that of the arrival"),
        column("csv_columns", pl.String, "Names of the columns as JSON; null: the first line names them"),
        column("csv_delimiter", pl.String, "Character between two values", required=True),
    ),
    key=("position",),
    configuration="decode",
    kinds=("iceberg", "reference", "mqtt"),
)
def topic_formats(entries: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """One row a topic filter of `[[decode]]`: what the payloads on its topics are.

    Source: secchi.toml.
    """
    filters = [(topic, entry) for entry in entries for topic in entry["topics"]]
    rows = [
        (
            position,
            topic,
            entry["format"],
            entry["time"],
            json.dumps(entry["columns"]) if entry["columns"] else None,
            entry["delimiter"],
        )
        for position, (topic, entry) in enumerate(filters)
    ]
    return pl.DataFrame(rows, {n: t for n, t in topic_formats.schema.items() if n != "batch_id"}, orient="row")
