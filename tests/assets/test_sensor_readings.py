from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.bronze.mqtt_messages import mqtt_messages
from assets.json_payload import MAX_BYTES
from assets.silver import sensor_readings as module
from assets.silver.sensor_readings import sensor_readings
from assets.table import Outputs
from tests.assets.golden import cases, plain, read_expected, read_input
from tests.assets.sensor_payloads import payloads

_INPUT = {
    n: t for n, t in mqtt_messages.schema.items() if n not in ("topic_parts", "properties", "ingested_at", "batch_id")
}
_PLAIN = (
    '{"ts":1729312551000,"metadata":{"siteId":101,"deviceId":1004,"sensorId":10034,"unit":"BAR"},"measurement":120}'
)


def _messages(payloads: list[bytes], topic: str = "factory_iot/north/101") -> pl.DataFrame:
    received_at = datetime(2024, 10, 19, 4, 35, 52, tzinfo=UTC)
    rows = [("north", topic, 1, False, p, received_at, "mqtt/1", 1, row) for row, p in enumerate(payloads)]
    return pl.DataFrame(rows, _INPUT, orient="row")


def _parsed(payloads: list[bytes]) -> Outputs:
    assert sensor_readings.function is not None
    outputs: Outputs = sensor_readings.function(_messages(payloads))
    return outputs


@pytest.mark.parametrize("case", cases("sensor_readings"), ids=lambda case: case.name)
def test_golden_case(case: Path) -> None:
    assert sensor_readings.function is not None
    rows, rejects = sensor_readings.function(read_input(case, _INPUT))
    assert plain(rows, "row") + plain(rejects, "reject") == read_expected(case)


def test_result_has_the_declared_columns() -> None:
    rows, rejects = _parsed([_PLAIN.encode(), b""])
    declared = {name: dtype for name, dtype in sensor_readings.schema.items() if name != "batch_id"}
    assert dict(rows.schema) == declared
    assert rejects.columns == ["stream", "sequence", "row", "reason", "message"]
    assert {name: rejects.schema[name] for name in ("stream", "sequence", "row")} == {
        name: declared[name] for name in ("stream", "sequence", "row")
    }


@pytest.mark.parametrize("payloads", [[], [b"nonsense"]])
def test_no_rows_have_the_types_of_many(payloads: list[bytes]) -> None:
    rows, rejects = _parsed(payloads)
    assert rows.schema == _parsed([_PLAIN.encode()]).rows.schema
    assert rows.is_empty()
    assert rejects.height == len(payloads)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (_PLAIN.encode() + b" " * MAX_BYTES, "too_large"),
        (_PLAIN.replace("BAR", "B" * MAX_BYTES).encode(), "too_large"),
        (b"\x00" * 1_000_000, "too_large"),
        (b"[" * 100_000, "too_large"),
        (b"[" * 60_000, "too_deep"),
        (b'{"a":' * 12_000, "too_deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
        (b'{"a":"' + b"[" * 40 + b'"}', "missing_field"),
        (b'{"a":"\\"' + b"[" * 40 + b'"}', "missing_field"),
        (b'{"a":"' + b"[" * 40, "invalid_json"),
        (_PLAIN.replace("120", "1" * 5000).encode(), "integer_out_of_range"),
        (_PLAIN.replace("120", "1" * 400).encode(), "not_finite"),
        (_PLAIN.replace("101", "1" * 400).encode(), "integer_out_of_range"),
        (_PLAIN.replace("1729312551000", f'"{"1" * 5000}"').encode(), "wrong_type"),
        (_PLAIN.replace("120", '120,"x":"\\udead"').encode(), "invalid_utf8"),
        (_PLAIN.replace("120", '120,"\\udead":1').encode(), "invalid_utf8"),
    ],
    ids=str,
)
def test_hostile_payload_is_rejected_alone(payload: bytes, reason: str) -> None:
    rows, rejects = _parsed([_PLAIN.encode(), payload, _PLAIN.encode()])
    assert rows["row"].to_list() == [0, 2]
    assert rejects["row"].to_list() == [1]
    assert rejects["reason"].item() == reason
    assert len(rejects["message"].item()) < 250


def test_plain_messages_take_the_fast_path() -> None:
    texts = [
        _PLAIN,
        _PLAIN.replace("1729312551000", '"1729312551000"'),
        _PLAIN.replace(":", ": ").replace(",", ", "),
        _PLAIN.replace("120", "-1.25e-3"),
        '{"measurement":1,"metadata":{"deviceType":"Gas Oven","location":{"longitude":1,"latitude":-2.5},"unit":"°C",'
        '"sensorId":3,"deviceId":-2,"siteId":1,"ts_human":"now"},"ts":0}',
    ]
    messages = _messages([text.encode() for text in texts]).with_row_index("index")
    assert module._fast(messages)["index"].to_list() == list(range(len(texts)))


def test_order_is_that_of_the_messages_over_many_morsels() -> None:
    count = 150_000
    text = pl.concat_str(
        pl.lit('{"ts":'),
        "n",
        pl.lit(',"metadata":{"siteId":1,"deviceId":2,"sensorId":3,"unit":"A"},"measurement":'),
        "n",
        pl.when(pl.col("n") % 5000 == 7).then(pl.lit(',"x":1}')).otherwise(pl.lit("}")),
    )
    numbered = pl.select(n=pl.int_range(count)).select(payload=text.cast(pl.Binary), row=pl.col("n").cast(pl.Int32))
    messages = _messages([b""]).drop("payload", "row").join(numbered, how="cross").select(_INPUT.keys())
    assert sensor_readings.function is not None
    rows, rejects = sensor_readings.function(messages)
    assert rejects.is_empty()
    assert rows["row"].to_list() == list(range(count))
    assert (rows["measurement"] == rows["row"]).all()
    assert rows["extra"].count() == count // 5000


def _bits(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with floats as their bits, which tell -0.0 from 0.0."""
    floats = [name for name, dtype in rows.schema.items() if dtype == pl.Float64]
    return rows.with_columns(pl.Series(n, rows[n].fill_null(1e-300).to_numpy().view("int64")) for n in floats)


@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_fast_path_gives_what_the_exact_path_gives(seed: int) -> None:
    messages = _messages(payloads(seed, 400))
    both, exact = module._parse(messages), module._parse(messages, fast=False)
    assert _bits(both.rows).equals(_bits(exact.rows))
    assert both.rejects.equals(exact.rejects)
    assert both.rows.height + both.rejects.height == messages.height
    # Else there would be nothing to compare.
    assert messages.height > both.rows.height > module._fast(messages.with_row_index("index")).height > 20


def test_comparison_of_the_paths_bites() -> None:
    """What DuckDB takes leniently would differ from the exact path if the fast path let it through."""
    lenient = [_PLAIN.replace("120", "120,"), _PLAIN.replace("10034", "10034.6"), _PLAIN.replace("1004,", "true,")]
    read = module._read_plain(pl.Series(lenient))
    assert read.select(pl.all_horizontal(pl.col(module._REQUIRED).is_not_null())).to_series().all()
    assert _parsed([text.encode() for text in lenient]).rows.is_empty()
