"""silver.topic_values."""

from datetime import timedelta
from typing import Any

import polars as pl

from assets.bronze.mqtt_messages import mqtt_messages
from assets.field_values import NUMBER_FIELD, Format, read_fields
from assets.payload_texts import json_texts
from assets.reference.topic_formats import topic_formats
from assets.rejected import RejectedError
from assets.table import UTC_TIME, Outputs, column, table
from resources.stored_table import Partition
from resources.topics import topic_pattern

_MESSAGE = "bronze.mqtt_messages"
_POSITION = ("stream", "sequence", "row")
_PLAIN_NUMBER = r"^[+-]?[0-9]{1,15}(?:\.[0-9]{1,17})?$"
_FIELDS: dict[str, Any] = {
    "index": pl.UInt32,
    "field": pl.String,
    "observed_us": pl.Int64,
    "value": pl.Float64,
    "text": pl.String,
}
_REJECTED: dict[str, Any] = {"index": pl.UInt32, "reason": pl.String, "message": pl.String}


def _with_format(messages: pl.DataFrame, formats: list[dict[str, Any]]) -> pl.DataFrame:
    """The messages on declared topics, with the ``position`` of the format that decides."""
    patterns = [(row["position"], topic_pattern(row["topic_filter"])) for row in formats]
    topics = messages["topic"].unique().to_list()
    deciding = [next((position for position, p in patterns if p.fullmatch(topic)), None) for topic in topics]
    declared = pl.DataFrame({"topic": topics, "position": deciding}, {"topic": pl.String, "position": pl.Int64})
    declared = declared.filter(pl.col("position").is_not_null())
    return messages.join(declared, on="topic", how="inner", maintain_order="left").with_row_index("index")


def _plain_numbers(taken: pl.DataFrame, numbers: list[int]) -> pl.DataFrame:
    """The fields of plain numbers, all at once."""
    chosen = taken.filter(pl.col("position").is_in(numbers))
    text = json_texts(chosen["payload"]).str.strip_chars(" \t\r\n")
    chosen = chosen.select("index", text=text).filter(pl.col("text").str.contains(_PLAIN_NUMBER))
    return chosen.select(
        "index",
        field=pl.lit(NUMBER_FIELD),
        observed_us=pl.lit(None, pl.Int64),
        value=pl.col("text").str.strip_prefix("+").cast(pl.Float64),
        text=pl.lit(None, pl.String),
    )


def _exact(taken: pl.DataFrame, formats: dict[int, Format]) -> tuple[pl.DataFrame, pl.DataFrame]:
    read: list[tuple[Any, ...]] = []
    refused: list[tuple[int, str, str]] = []
    for index, position, payload in taken.select("index", "position", "payload").iter_rows():
        try:
            read += [(index, *field) for field in read_fields(payload, formats[position])]
        except RejectedError as error:
            refused.append((index, error.reason, error.message))
    return pl.DataFrame(read, _FIELDS, orient="row"), pl.DataFrame(refused, _REJECTED, orient="row")


_COLUMNS = (
    column("broker", pl.String, "Name of the broker in secchi.toml", required=True, lineage=f"{_MESSAGE}.broker"),
    column("topic", pl.String, "Topic of the message", required=True, lineage=f"{_MESSAGE}.topic"),
    column(
        "field",
        pl.String,
        "Name of the value; of nested ones with dots, a.b or a.0; 'value' where the payload is a number",
        required=True,
        lineage=f"{_MESSAGE}.payload",
    ),
    column(
        "observed_at",
        UTC_TIME,
        "The sender's time; the arrival's where it tells none",
        required=True,
        lineage=(f"{_MESSAGE}.payload", f"{_MESSAGE}.received_at", "reference.topic_formats.time_field"),
    ),
    column("value", pl.Float64, "The number; 1 or 0 of a boolean; null of a text", lineage=f"{_MESSAGE}.payload"),
    column("text", pl.String, "The text; true or false of a boolean; null of a number", lineage=f"{_MESSAGE}.payload"),
    column(
        "is_retained",
        pl.Boolean,
        "Whether the broker sent it from its store: an arrival's time is then not that of the value",
        required=True,
        lineage=f"{_MESSAGE}.retain",
    ),
    column(
        "topic_parts",
        pl.String,
        "Parts of the topic that the subscription names, as JSON",
        lineage=f"{_MESSAGE}.topic_parts",
    ),
    column("received_at", UTC_TIME, "When the collector took it", required=True, lineage=f"{_MESSAGE}.received_at"),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(mqtt_messages,),
    references=(topic_formats,),
    key=("broker", "topic", "field", "observed_at"),
    series=("broker", "topic", "field"),
    time="observed_at",
    value=("value", "text"),
    sender=("broker", "topic"),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "broker", "topic", "field"),
    kinds=("iceberg", "silver", "polars", "mqtt"),
    freshness=timedelta(minutes=5),
)
def topic_values(messages: pl.DataFrame, *, topic_formats: pl.DataFrame) -> Outputs:
    """One row a field of a message on a topic whose format is declared.

    Source: `bronze.mqtt_messages` on the topics of `[[decode]]` (`reference.topic_formats`). A message that is not what
    its format says is rejected with its reason: empty_payload, too_large, invalid_gzip, invalid_msgpack, invalid_csv,
    invalid_utf8, invalid_json, too_deep, not_an_object, duplicate_field, missing_field, wrong_type, not_finite or
    integer_out_of_range.
    """
    declared = topic_formats.sort("position").to_dicts()
    taken = _with_format(messages, declared)
    formats = {row["position"]: Format.of(row) for row in declared}
    plain = _plain_numbers(taken, [position for position, form in formats.items() if form.name == "number"])
    exact, rejects = _exact(taken.join(plain, on="index", how="anti", maintain_order="left"), formats)
    fields = pl.concat([plain, exact])
    origin = taken.select("broker", "topic", "topic_parts", "received_at", *_POSITION, is_retained="retain")
    rows = fields.hstack(origin[fields["index"]]).with_columns(
        observed_at=pl.coalesce(pl.col("observed_us").cast(UTC_TIME), "received_at")
    )
    refused = taken[rejects["index"]].select(_POSITION).hstack(rejects.drop("index"))
    return Outputs(rows.select(*(c.name for c in _COLUMNS), *_POSITION), refused)
