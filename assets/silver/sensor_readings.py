"""silver.sensor_readings."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl

from assets.bronze.mqtt_messages import mqtt_messages
from assets.json_payload import (
    MAX_BYTES,
    as_integer,
    as_number,
    as_object,
    as_text,
    parse_object,
    shown,
    unknown_as_json,
)
from assets.payload_texts import INTEGER, NUMBER, TEXT, ask, json_texts, member, members, whole
from assets.rejected import RejectedError
from assets.spellings import load_spellings
from assets.table import UTC_TIME, Outputs, column, table
from resources.stored_table import Partition
from resources.topics import matching

_PAYLOAD = "bronze.mqtt_messages.payload"
_MAX_MILLISECONDS = (2**63 - 1) // 1000
_POSITION = ("stream", "sequence", "row")
_FIELDS = {
    "ts": pl.Int64,
    "site_id": pl.Int64,
    "device_id": pl.Int64,
    "sensor_id": pl.Int64,
    "unit": pl.String,
    "ts_human": pl.String,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "device_type": pl.String,
    "measurement": pl.Float64,
}
_REQUIRED = ("ts", "site_id", "device_id", "sensor_id", "unit", "measurement")
_KNOWN = frozenset({"ts", "metadata", "measurement"})
_KNOWN_METADATA = frozenset({"siteId", "deviceId", "sensorId", "unit"})


# Counting the names of a plain message tells whether a field stands twice: DuckDB would take the first of them.
_PLAIN = whole(
    members(
        member("ts", r'(?:(?:0|[1-9][0-9]{0,14})|"[0-9]{1,15}")'),
        member("measurement", NUMBER),
        member(
            "metadata",
            members(
                member("siteId|deviceId|sensorId", INTEGER),
                member("unit|ts_human|deviceType", TEXT),
                member("location", members(member("latitude|longitude", NUMBER))),
            ),
        ),
    )
)
_STRUCTURE = json.dumps(
    {
        "ts": "BIGINT",
        "metadata": {
            "siteId": "BIGINT",
            "deviceId": "BIGINT",
            "sensorId": "BIGINT",
            "unit": "VARCHAR",
            "ts_human": "VARCHAR",
            "location": {"latitude": "DOUBLE", "longitude": "DOUBLE"},
            "deviceType": "VARCHAR",
        },
        "measurement": "DOUBLE",
    }
)


def _read_plain(texts: pl.Series) -> pl.DataFrame:
    """The fields of texts that match ``_PLAIN``."""
    query = "select unnest(json_transform(payload, $structure), recursive := true) from messages"
    found = ask(query, texts, structure=_STRUCTURE)
    return found.rename(dict(zip(found.columns, _FIELDS, strict=True)))


def _fast(messages: pl.DataFrame) -> pl.DataFrame:
    """The fields of the plain messages, with their ``index``."""
    text = pl.col("text")
    plain = (
        messages.lazy()
        .select("index", text=json_texts(messages["payload"]))
        .filter((text.str.len_bytes() <= MAX_BYTES) & text.str.contains(_PLAIN))
        .with_columns(names=text.str.count_matches('":', literal=True))
        .collect(engine="streaming")
    )
    has_location = pl.any_horizontal(pl.col("latitude", "longitude").is_not_null())
    names = pl.sum_horizontal(pl.col(_FIELDS).is_not_null()) + has_location + 1  # metadata itself
    is_sure = pl.all_horizontal(pl.col(_REQUIRED).is_not_null()) & (names == pl.col("names"))
    fields = plain.select("index", "names").hstack(_read_plain(plain["text"]))
    return fields.filter(is_sure).select("index", *_FIELDS, extra=pl.lit(None, pl.String))


def _milliseconds(value: Any) -> int:
    """``ts``: some senders quote it."""
    if isinstance(value, str):
        if not re.fullmatch(r"\s*-?[0-9]{1,4000}\s*", value):
            raise RejectedError("wrong_type", f"ts must be epoch milliseconds, got {shown(value)}")
        value = int(value)
    return as_integer("ts", value, _MAX_MILLISECONDS)


def _optional(take: Callable[[str, Any], Any], field: str, owner: dict[str, Any], is_lenient: bool) -> Any:
    """The value of a field that may be missing; one of another type stays in ``owner`` as unknown where that is right.

    Raises:
        RejectedError: it has another type.
    """
    name = field.rpartition(".")[2]
    value = owner.pop(name, None)
    try:
        return None if value is None else take(field, value)
    except RejectedError as error:
        if not is_lenient or error.reason != "wrong_type":
            raise
        owner[name] = value
        return None


def _unknown(document: dict[str, Any], metadata: dict[str, Any], location: dict[str, Any]) -> dict[str, Any]:
    """The fields that no column takes, nested as they came; the optional ones that were taken are gone already."""
    found = {k: v for k, v in document.items() if k not in _KNOWN}
    nested = {k: v for k, v in metadata.items() if k not in _KNOWN_METADATA}
    if location:
        nested["location"] = location
    return {**found, "metadata": nested} if nested else found


def _read_exactly(payload: bytes, is_lenient: bool) -> tuple[Any, ...]:
    """The fields of one message and its unknown fields as JSON text.

    Raises:
        RejectedError: the message is no sensor reading.
    """
    document = parse_object(payload)
    metadata = as_object("metadata", document.get("metadata"))
    location = _optional(as_object, "metadata.location", metadata, is_lenient) or {}
    return (
        _milliseconds(document.get("ts")),
        as_integer("metadata.siteId", metadata.get("siteId")),
        as_integer("metadata.deviceId", metadata.get("deviceId")),
        as_integer("metadata.sensorId", metadata.get("sensorId")),
        as_text("metadata.unit", metadata.get("unit")),
        _optional(as_text, "metadata.ts_human", metadata, is_lenient),
        _optional(as_number, "metadata.location.latitude", location, is_lenient),
        _optional(as_number, "metadata.location.longitude", location, is_lenient),
        _optional(as_text, "metadata.deviceType", metadata, is_lenient),
        as_number("measurement", document.get("measurement")),
        unknown_as_json(_unknown(document, metadata, location)),
    )


def _exact(messages: pl.DataFrame, is_lenient: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The fields of any messages with their ``index``, and the rejects with theirs."""
    read: list[tuple[Any, ...]] = []
    rejected: list[tuple[int, str, str]] = []
    for index, payload in messages.select("index", "payload").iter_rows():
        try:
            read.append((index, *_read_exactly(payload, is_lenient)))
        except RejectedError as error:
            rejected.append((index, error.reason, error.message))
    index_type = {"index": messages.schema["index"]}
    fields = pl.DataFrame(read, {**index_type, **_FIELDS, "extra": pl.String}, orient="row")
    rejects = pl.DataFrame(rejected, {**index_type, "reason": pl.String, "message": pl.String}, orient="row")
    return fields, rejects


def _named(rows: pl.DataFrame, name: str, source: str, of: Callable[[str], str | None]) -> pl.DataFrame:
    """Adds the column ``name``: a function of the few distinct texts of ``source``."""
    distinct = rows[source].drop_nulls().unique()
    names = pl.DataFrame({source: distinct, name: pl.Series([of(text) for text in distinct], dtype=pl.String)})
    return rows.join(names, on=source, how="left", maintain_order="left")


def _region(topic: str) -> str | None:
    return topic.partition("/")[2].partition("/")[0] or None


def _rows(messages: pl.DataFrame, fields: pl.DataFrame) -> pl.DataFrame:
    rows = messages.select("topic", "received_at", *_POSITION).hstack(fields.drop("index"))
    rows = rows.with_columns(
        pl.col("unit", "device_type").str.strip_chars(),
        observed_at=(pl.col("ts") * 1000).cast(UTC_TIME),
    )
    rows = _named(rows, "unit_canonical", "unit", load_spellings("unit").canonical)
    rows = _named(rows, "device_type_canonical", "device_type", load_spellings("device_type").canonical)
    rows = _named(rows, "region", "topic", _region)
    return rows.select(*(c.name for c in _COLUMNS), *_POSITION)


def _parse(messages: pl.DataFrame, *, fast: bool = True, is_lenient: bool = False) -> Outputs:
    topics = matching(messages["topic"].unique(), sensor_readings.topics)
    taken = messages.filter(pl.col("topic").is_in(topics)).with_row_index("index")
    plain = _fast(taken if fast else taken.clear())
    rest = (
        taken.clear()
        if plain.height == taken.height
        else taken.join(plain, on="index", how="anti", maintain_order="left")
    )
    exact, rejects = _exact(rest, is_lenient)
    fields = pl.concat([plain, exact]).sort("index") if exact.height else plain
    accepted = taken if fields.height == taken.height else taken[fields["index"]]
    refused = taken[rejects["index"]].select(_POSITION).hstack(rejects.drop("index"))
    return Outputs(_rows(accepted, fields), refused)


_COLUMNS = (
    column("site_id", pl.Int64, "Site, `metadata.siteId`", required=True, lineage=_PAYLOAD),
    column("device_id", pl.Int64, "Device within the site, `metadata.deviceId`", required=True, lineage=_PAYLOAD),
    column(
        "sensor_id", pl.Int64, "Sensor, `metadata.sensorId`; may stand in two devices", required=True, lineage=_PAYLOAD
    ),
    column("unit", pl.String, "Unit of the measurement as sent, trimmed", required=True, lineage=_PAYLOAD),
    column("unit_canonical", pl.String, "Unit in one spelling, e.g. litre_per_minute", required=True, lineage=_PAYLOAD),
    column("observed_at", UTC_TIME, "When the sensor measured, `ts`", required=True, lineage=_PAYLOAD),
    column("ts_human", pl.String, "Time text of the sender, `metadata.ts_human`", lineage=_PAYLOAD),
    column("longitude", pl.Float64, "Degrees east", minimum=-180, maximum=180, lineage=_PAYLOAD),
    column("latitude", pl.Float64, "Degrees north", minimum=-90, maximum=90, lineage=_PAYLOAD),
    column("device_type", pl.String, "Type of the device as sent, trimmed", lineage=_PAYLOAD),
    column("device_type_canonical", pl.String, "Type of the device in one spelling, e.g. gas_oven", lineage=_PAYLOAD),
    column("measurement", pl.Float64, "Measured value, in `unit`", required=True, lineage=_PAYLOAD),
    column("region", pl.String, "Second level of the topic", lineage="bronze.mqtt_messages.topic"),
    column("extra", pl.String, "Fields that no column takes, as JSON; null if none", lineage=_PAYLOAD),
    column(
        "received_at", UTC_TIME, "When the collector took it", required=True, lineage="bronze.mqtt_messages.received_at"
    ),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(mqtt_messages,),
    topics=("factory_iot/+/#",),
    key=("site_id", "device_id", "sensor_id", "unit", "observed_at"),
    series=("site_id", "device_id", "sensor_id", "unit"),
    time="observed_at",
    value=("measurement",),
    sender=("site_id", "device_id"),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "site_id", "device_id", "sensor_id", "unit"),
    kinds=("iceberg", "silver", "polars", "duckdb"),
    freshness=timedelta(minutes=5),
)
def sensor_readings(messages: pl.DataFrame, *, is_lenient: bool = False) -> Outputs:
    """One row a reading of a factory sensor: a measurement of one series at one time.

    A series is (site, device, sensor, unit as sent). Source: `bronze.mqtt_messages` whose topic starts with
    `factory_iot/`, in their order. Readings may arrive months late and in any order. A message that is no reading is
    rejected with its reason: empty_payload, too_large, invalid_gzip, invalid_msgpack, invalid_utf8, invalid_json,
    too_deep, not_an_object, duplicate_field, missing_field, wrong_type, not_finite or integer_out_of_range.
    """
    return _parse(messages, is_lenient=is_lenient)
