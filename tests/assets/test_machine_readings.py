import json
import os
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import flat_json
from assets.bronze.mqtt_messages import mqtt_messages
from assets.silver import machine_readings as module
from assets.silver.machine_readings import machine_readings
from assets.table import Outputs
from tests.assets.golden import cases, plain, read_expected, read_input

_INPUT = {
    n: t for n, t in mqtt_messages.schema.items() if n not in ("topic_parts", "properties", "ingested_at", "batch_id")
}
_ORDER = ("stream", "sequence", "row", "quantity", "axis")
_PLAIN = '{"Thing":"R0815","Timestamp":1554096460415,"vaTorque_C11":2.873,"actSpeed_C11":288,"id":"a"}'


def _messages(payloads: list[bytes], topic: str = "machine/states") -> pl.DataFrame:
    received_at = datetime(2019, 4, 1, 5, 30, tzinfo=UTC)
    rows = [("hall", topic, 2, False, payload, received_at, "mqtt/1", 1, row) for row, payload in enumerate(payloads)]
    return pl.DataFrame(rows, _INPUT, orient="row")


def _parsed(payloads: list[bytes]) -> Outputs:
    assert machine_readings.function is not None
    outputs: Outputs = machine_readings.function(_messages(payloads))
    return outputs


def _takes_fast_path(payloads: list[str]) -> list[bool]:
    messages = _messages([payload.encode() for payload in payloads]).with_row_index("index")
    fast = set(module._fast(messages)["index"])
    return [index in fast for index in range(len(payloads))]


@pytest.mark.parametrize("case", cases("machine_readings"), ids=lambda case: case.name)
def test_golden_case(case: Path) -> None:
    assert machine_readings.function is not None
    rows, rejects = machine_readings.function(read_input(case, _INPUT))
    assert plain(rows.sort(_ORDER), "row") + plain(rejects, "reject") == read_expected(case)


def test_sample_loads_whole() -> None:
    folder = os.environ.get("SECCHI_TEST_DATA")
    if not folder:
        pytest.skip("SECCHI_TEST_DATA names no folder with the recordings")
    payloads = (Path(folder) / "machine" / "events_sample.jsonl").read_bytes().splitlines()
    rows, rejects = _parsed(payloads)
    assert (len(payloads), rows.height, rejects.height) == (5000, 19_825, 0)
    sent = {
        (state["Thing"], state["Timestamp"], name, float(value), state["id"])
        for state in map(json.loads, payloads)
        for name, value in state.items()
        if name not in ("Thing", "Timestamp", "id")
    }
    name = pl.concat_str("quantity", "axis", separator="_")
    stored = rows.select("thing", pl.col("observed_at").dt.epoch("ms"), name, "value", "message_id")
    assert set(stored.rows()) == sent and len(sent) == rows.height
    texts = [payload.decode() for payload in payloads]
    assert all(_takes_fast_path(texts)) and all(_takes_fast_path([repr(json.loads(text)) for text in texts]))


@pytest.mark.parametrize("payloads", [[], [b"nonsense"], [_PLAIN.encode()]])
def test_result_has_the_declared_columns(payloads: list[bytes]) -> None:
    rows, rejects = _parsed(payloads)
    assert dict(rows.schema) == {n: dtype for n, dtype in machine_readings.schema.items() if n != "batch_id"}
    assert rejects.columns == ["stream", "sequence", "row", "reason", "message"]


def test_plain_messages_take_the_fast_path() -> None:
    plain_texts = [
        _PLAIN,
        _PLAIN.replace(":", " : ").replace(" : ", ": ").replace(",", " , "),
        _PLAIN.replace('"', "'"),
        _PLAIN.replace("1554096460415", '"1554096460"'),
        _PLAIN.replace("2.873", "-1.25e-3"),
        '{"index":1,"names":2,"text":3,"Thing":"A","Timestamp":0,"value":4}',
    ]
    others = [
        _PLAIN.replace("2.873", "null"),
        _PLAIN.replace("1554096460415", "1554096460.415"),
        _PLAIN.replace("1554096460415", "1e12"),
        _PLAIN.replace('"R0815"', "5"),
        _PLAIN.replace('"a"', "5"),
        _PLAIN.replace("2.873", "-0"),
        _PLAIN.replace("vaTorque_C11", "thing"),
        _PLAIN.replace("vaTorque_C11", "ACTSPEED_C11"),
        _PLAIN.replace("vaTorque_C11", "actSpeed_C11"),
        '{"Thing":"A","Timestamp":1554096460415}',
    ]
    assert _takes_fast_path(plain_texts) == [True] * len(plain_texts)
    assert [_takes_fast_path([text]) for text in others] == [[False]] * len(others)


def test_names_beyond_the_most_are_read_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [f'{{"Thing":"A","Timestamp":{i},"q{i % 7}_X":{i},"p_X":1}}'.encode() for i in range(100)]
    whole = _parsed(payloads).rows.sort(_ORDER)
    monkeypatch.setattr(flat_json, "MOST_NAMES", 4)
    monkeypatch.setattr(flat_json, "_CELLS", 20)
    assert 0 < sum(_takes_fast_path([p.decode() for p in payloads])) < 100
    assert _parsed(payloads).rows.sort(_ORDER).equals(whole) and whole.height == 200


def test_hostile_payload_is_rejected_alone() -> None:
    deep = "{'a': '\"', 'b': " + "[" * 40_000
    bad = [
        b"\xff",
        b"{" * 60_000,
        deep.encode(),
        b"'" * 60_000,
        b"x" * 70_000,
        _PLAIN.replace("2.873", "9" * 400).encode(),
    ]
    payloads = [each for payload in bad for each in (_PLAIN.encode(), payload)]
    rows, rejects = _parsed(payloads)
    assert rejects["row"].to_list() == list(range(1, 12, 2))
    assert rejects["reason"].to_list() == [
        "invalid_utf8",
        "too_deep",
        "too_deep",
        "invalid_json",
        "too_large",
        "not_finite",
    ]
    assert set(range(0, 12, 2)) <= set(rows["row"]) and rows.height == 13


_NUMBERS = [
    "0",
    "-0",
    "1",
    "-1.5",
    "01",
    "1.",
    ".5",
    "1e5",
    "1e400",
    "-0.0",
    "0.10",
    "NaN",
    "nan",
    "123456789012345678",
]
_NUMBERS += [
    "9223372036854775808",
    "0.1234567890123456789",
    "1554096460",
    "1554096460415",
    '"1554096460415"',
    "1e12",
    "5e-324",
]
_OTHERS = [
    "null",
    "None",
    "true",
    "True",
    '"text"',
    '"it\'s"',
    '"\\u00e9"',
    '"\\ud800"',
    "[]",
    '{"a":1}',
    '"a\tb"',
    '""',
    "",
]
_NAMES = [
    "vaTorque_C11",
    "actSpeed_C11",
    "load",
    "a_b_c",
    "_x",
    "x_",
    "Thing",
    "thing",
    "ID",
    "id",
    "Timestamp",
    "é_C1",
    "a b",
    "",
]


def _payload(random: Random, strangeness: float) -> bytes:
    def value() -> str:
        return random.choice(_NUMBERS if random.random() > strangeness / 2 else _OTHERS)

    usual = [("Thing", '"R0815"'), ("Timestamp", str(random.randrange(10 ** random.randrange(1, 20)))), ("id", '"x"')]
    pairs = [pair for pair in usual if random.random() > strangeness / 4]
    names = random.sample(_NAMES[:3] if random.random() > strangeness else _NAMES, 3)
    pairs += [(name, value() if random.random() < 0.5 else f"{random.uniform(-9, 9):.3f}") for name in names]
    if random.random() < strangeness:
        pairs = [(name, value() if random.random() < 0.2 else given) for name, given in pairs]
    random.shuffle(pairs)
    space = random.choice(["", "", " ", "\n"])
    text = "{" + f",{space}".join(f'"{name}":{space}{given}' for name, given in pairs) + "}"
    if random.random() < strangeness / 3:
        at = random.randrange(len(text))
        text = text[:at] + random.choice(["", '"', "'", "\\", "}", ","]) + text[at + 1 :]
    return text.replace('"', "'").encode() if random.random() < 0.3 else text.encode()


def _bits(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with values as their bits, which tell -0.0 from 0.0."""
    return rows.sort(_ORDER).with_columns(pl.Series("value", rows.sort(_ORDER)["value"].to_numpy().view("int64")))


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_fast_path_gives_what_the_exact_path_gives(seed: int) -> None:
    random = Random(seed)
    payloads = [_payload(random, random.choice([0.0, 0.1, 0.5])) for _ in range(500)]
    messages = _messages(payloads)
    both, exact = module._parse(messages), module._parse(messages, fast=False)
    assert _bits(both.rows).equals(_bits(exact.rows))
    assert both.rejects.equals(exact.rejects)
    fast = module._fast(messages.with_row_index("index"))["index"].n_unique()
    # Else there would be nothing to compare.
    assert both.rows["row"].n_unique() > fast > 20 and both.rejects.height > 20


def test_unsafe_python_is_not_evaluated(tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil: list[Any] = [f"open({str(made)!r}, 'w')", "__import__('os')", "f'{1}'", "b'x'", "1 + 1", "(1,)", "1_000"]
    rows, rejects = _parsed([f"{{'Thing': 'A', 'Timestamp': 1, 'v': {each}}}".encode() for each in evil])
    assert rows.is_empty() and set(rejects["reason"]) == {"invalid_json"} and not made.exists()
