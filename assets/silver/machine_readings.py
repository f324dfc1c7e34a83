"""silver.machine_readings."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import polars as pl

from assets.bronze.mqtt_messages import mqtt_messages
from assets.epochs import epoch_expression, epoch_microseconds
from assets.flat_json import Member, flat_numbers
from assets.json_payload import as_number, as_text, parse_object, unknown_as_json
from assets.payload_texts import TEXT
from assets.rejected import RejectedError
from assets.table import UTC_TIME, Outputs, column, table
from resources.stored_table import Partition
from resources.topics import matching

_PAYLOAD = "bronze.mqtt_messages.payload"
_POSITION = ("stream", "sequence", "row")
_FIXED = {
    "Thing": Member(r'"[^"\\\x00-\x1f]+"', "VARCHAR"),
    "Timestamp": Member(r'(?:(?:0|[1-9][0-9]{0,17})|"[0-9]{1,18}")', "BIGINT"),
    "id": Member(TEXT, "VARCHAR", is_required=False),
}
_FIELDS: dict[str, Any] = {
    "index": pl.UInt32,
    "thing": pl.String,
    "quantity": pl.String,
    "axis": pl.String,
    "observed_at": UTC_TIME,
    "value": pl.Float64,
    "message_id": pl.String,
    "extra": pl.String,
}
_REJECTED = {"index": pl.UInt32, "reason": pl.String, "message": pl.String}


def _quantity(name: str) -> tuple[str, str | None]:
    """Quantity and axis: what stands before and behind the last underscore of a name."""
    quantity, _, axis = name.rpartition("_")
    return (quantity, axis) if quantity and axis else (name, None)


def _fast(messages: pl.DataFrame) -> pl.DataFrame:
    """The rows of the plain messages, with the ``index`` of their message."""
    numbers = flat_numbers(messages.select("index", "payload"), _FIXED)
    kind = numbers.schema["name"]
    assert isinstance(kind, pl.Enum)
    named = [_quantity(name) for name in kind.categories]
    code = numbers["name"].to_physical()
    return numbers.select(
        "index",
        thing="Thing",
        quantity=pl.Series([quantity for quantity, _ in named], dtype=pl.String).gather(code),
        axis=pl.Series([axis for _, axis in named], dtype=pl.String).gather(code),
        observed_at=epoch_expression(pl.col("Timestamp")).cast(UTC_TIME),
        value="value",
        message_id="id",
        extra=pl.lit(None, pl.String),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _thing(document: dict[str, Any]) -> str:
    if not (thing := as_text("Thing", document.get("Thing"))):
        raise RejectedError("missing_field", "Thing is empty; must be text")
    return thing


def _read_exactly(payload: bytes, rejected: list[RejectedError], is_lenient: bool) -> Iterator[tuple[Any, ...]]:
    """The rows of one message, without index; numbers that are not finite are ``rejected`` alone.

    Raises:
        RejectedError: the message is no machine state.
    """
    document = parse_object(payload)
    thing = _thing(document)
    observed_us = epoch_microseconds("Timestamp", document.get("Timestamp"))
    sent_id = document.get("id")
    is_strange = is_lenient and not isinstance(sent_id, str)
    message_id = None if sent_id is None or is_strange else as_text("id", sent_id)
    others = {name: value for name, value in document.items() if name not in _FIXED and value is not None}
    unknown = {name: value for name, value in others.items() if not _is_number(value)}
    extra = unknown_as_json({**unknown, "id": sent_id} if is_strange and sent_id is not None else unknown)
    numbers = {name: value for name, value in others.items() if _is_number(value)}
    if not numbers:
        raise RejectedError("missing_field", "no quantity is there; must be at least one field with a number")
    for name, value in numbers.items():
        try:
            yield thing, *_quantity(name), observed_us, as_number(name, value), message_id, extra
        except RejectedError as error:
            rejected.append(error)


def _exact(messages: pl.DataFrame, is_lenient: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of any messages with the ``index`` of theirs, and the rejects with theirs."""
    read: list[tuple[Any, ...]] = []
    refused: list[tuple[int, str, str]] = []
    for index, payload in messages.select("index", "payload").iter_rows():
        rejected: list[RejectedError] = []
        try:
            read += [(index, *row) for row in _read_exactly(payload, rejected, is_lenient)]
        except RejectedError as error:
            rejected = [error]
        refused += [(index, error.reason, error.message) for error in rejected[:1]]
    rows = pl.DataFrame(read, {**_FIELDS, "observed_at": pl.Int64}, orient="row")
    return rows.with_columns(pl.col("observed_at").cast(UTC_TIME)), pl.DataFrame(refused, _REJECTED, orient="row")


def _parse(messages: pl.DataFrame, *, fast: bool = True, is_lenient: bool = False) -> Outputs:
    topics = matching(messages["topic"].unique(), machine_readings.topics)
    taken = messages.filter(pl.col("topic").is_in(topics)).with_row_index("index")
    plain = _fast(taken if fast else taken.clear())
    rest = taken.join(plain, on="index", how="anti", maintain_order="left")
    exact, rejects = _exact(rest, is_lenient)
    fields = pl.concat([plain, exact])
    origin = taken.select("received_at", *_POSITION)[fields["index"]]
    refused = taken[rejects["index"]].select(_POSITION).hstack(rejects.drop("index"))
    return Outputs(fields.hstack(origin).select(*(c.name for c in _COLUMNS), *_POSITION), refused)


_COLUMNS = (
    column("thing", pl.String, "Machine, `Thing`", required=True, lineage=_PAYLOAD),
    column(
        "quantity", pl.String, "What was measured: the field's name before its axis", required=True, lineage=_PAYLOAD
    ),
    column(
        "axis",
        pl.String,
        "Behind the last underscore of the field's name, e.g. C11; null if there is none",
        lineage=_PAYLOAD,
    ),
    column("observed_at", UTC_TIME, "When the machine measured, `Timestamp`", required=True, lineage=_PAYLOAD),
    column("value", pl.Float64, "Measured value", required=True, lineage=_PAYLOAD),
    column("message_id", pl.String, "The sender's name of the message, `id`; null if it gives none", lineage=_PAYLOAD),
    column("extra", pl.String, "Fields of the message that are no numbers, as JSON; null if none", lineage=_PAYLOAD),
    column(
        "received_at", UTC_TIME, "When the collector took it", required=True, lineage="bronze.mqtt_messages.received_at"
    ),
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(mqtt_messages,),
    topics=("machine/states/#",),
    key=("thing", "quantity", "axis", "observed_at"),
    series=("thing", "quantity", "axis"),
    time="observed_at",
    value=("value",),
    sender=("thing",),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "thing", "quantity", "axis"),
    kinds=("iceberg", "silver", "polars", "duckdb"),
    freshness=timedelta(minutes=5),
)
def machine_readings(messages: pl.DataFrame, *, is_lenient: bool = False) -> Outputs:
    """One row a quantity of a machine's state at one time.

    A state is sparse: every field that holds a number is a quantity, `<quantity>_<axis>`. Source:
    `bronze.mqtt_messages` of the topic `machine/states` and below it, as JSON or as the text of a Python dict. Times go
    back and forth; seconds, milliseconds, microseconds and nanoseconds are told apart by their size. A number that is
    not finite is rejected alone (not_finite); a message that is no state with its reason: empty_payload, too_large,
    invalid_gzip, invalid_msgpack, invalid_utf8, invalid_json, too_deep, not_an_object, duplicate_field, missing_field,
    wrong_type, not_finite or integer_out_of_range.
    """
    return _parse(messages, is_lenient=is_lenient)
