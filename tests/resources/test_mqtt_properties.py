"""Properties of a PUBLISH: paho packs them, ours says what they are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from resources.mqtt_properties import properties_text

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def packed(**values: Any) -> bytes:
    """Without the length before them."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    whole: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return whole[1 if len(whole) <= 128 else 2 :]


@given(
    st.lists(st.tuples(TEXT, TEXT), max_size=6), st.none() | TEXT, st.none() | TEXT, st.none() | st.binary(max_size=9)
)
def test_what_paho_packs_is_said(user: list[tuple[str, str]], kind: Any, reply: Any, correlation: Any) -> None:
    given = {"UserProperty": user, "ContentType": kind, "ResponseTopic": reply, "CorrelationData": correlation}
    given |= {"PayloadFormatIndicator": 1, "MessageExpiryInterval": 60, "TopicAlias": 3, "SubscriptionIdentifier": 300}
    text = properties_text(packed(**{name: value for name, value in given.items() if value not in (None, [])}))
    found = json.loads(text) if text else {}
    values: dict[str, list[str]] = {}
    for name, value in user:
        values.setdefault(name, []).append(value)
    assert found.pop("user", {}) == {name: each if len(each) > 1 else each[0] for name, each in values.items()}
    expected = {"content_type": kind, "response_topic": reply}
    expected["correlation_data"] = None if correlation is None else correlation.hex()
    assert found == {name: value for name, value in expected.items() if value is not None}


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x26\x00\x01a", b"\x09\x00\x09", b"\x03", b"\x02\x00", b"\x0b\xff", b"\x7f\x01"]
)
def test_what_is_no_property_is_kept_in_hex(data: bytes) -> None:
    assert json.loads(properties_text(data) or "") == {"malformed": data.hex()}


@given(st.binary(max_size=30))
def test_any_octets_are_properties_or_kept(data: bytes) -> None:
    text = properties_text(data)
    assert text is None or isinstance(json.loads(text), dict)


def test_text_that_is_not_utf_8_stays_legible() -> None:
    assert properties_text(b"\x03\x00\x02a\xff") == '{"content_type":"a\\\\xff"}'
