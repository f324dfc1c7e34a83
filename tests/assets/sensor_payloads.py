"""Payloads of factory sensors for hypothesis: right ones, and wrong ones in every way that came to mind."""

import json

from hypothesis import strategies as st

# fmt: off
_NASTY_NUMBERS = [
    "0", "-0", "0.0", "-0.0", "1", "-1", "01", "+1", "1.", ".5", "1e5", "1E+5", "1e-5", "1e99", "-1e-99", "1e400",
    "1e-400", "0e0", "5e-324", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity", "12.50", "9007199254740993",
    "999999999999999", "9999999999999999", "123456789012345678", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "18446744073709551616", "0.1e1", "1e1.5", "0x10", "1_0", "123456789012345.12345678901234567",
    "123456789012345.123456789012345678", "9223372036854775", "9223372036854776", "1729312551000", "1729312551000.0",
]
_NASTY_TEXTS = [
    '""', '"BAR"', '" Bar "', '":"', '"\\":"', '"a\\"b"', '"\\u0041"', '"\\ud800"', '"\\u00e9"', '"é\u2003"', '"\x00"',
    '"\t"', '"\\n"', '"\\q"', '"\u2028"', '"1"', '"1729312551000"', '" 12 "', '"-5"', '"0012"', '"1e3"', '"\u0661"',
    '"\U0001f642"', "'BAR'", '"unterminated', '"\x7f"', '"ts":1', '"999999999999999"', '"9999999999999999"', '"null"',
]
# fmt: on
_NUMBERS = st.one_of(
    st.sampled_from(_NASTY_NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(str),
)
_TEXTS = st.one_of(
    st.sampled_from(_NASTY_TEXTS), st.text(max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False))
)
_OTHERS = st.sampled_from(["true", "false", "null", "{}", "[]", "[1]", '{"a":1}', "", "nul", "/**/1", "{", "}", "1}"])
_ANY = st.one_of(_NUMBERS, _TEXTS, _OTHERS)
_SPACES = st.sampled_from(["", "", "", "", " ", "\n", "\t ", "\u00a0", "\x0b"])
_SEPARATORS = st.sampled_from([",", ",", ",", ",", ",", ", ", ",,", ";", " "])


def _value(usual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.integers(0, 9).flatmap(lambda n: usual if n else _ANY)


@st.composite
def _objects(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[str]]) -> str:
    names = draw(st.permutations(list(fields)))
    strange = draw(st.integers(0, 11))
    if strange == 0:
        names = [*names, draw(st.sampled_from(names))]
    elif strange == 1:
        names = [*names, draw(st.sampled_from(["x", "TS", "\\u0074s", "unit ", "", "metadata", "ts", "location"]))]
    elif strange == 2:
        names = names[1:]
    members = [f'"{n}"{draw(_SPACES)}:{draw(_SPACES)}{draw(fields.get(n, _ANY))}' for n in names]
    text = members[0] if members else ""
    for member in members[1:]:
        text += draw(_SEPARATORS) + member
    return "{" + draw(_SPACES) + text + draw(st.sampled_from(["", "", "", "", "", ","])) + draw(_SPACES) + "}"


_IDS = st.one_of(st.integers(-5, 10**6), st.integers(-(2**63), 2**63)).map(str)
_LOCATIONS = _objects({"latitude": _value(_NUMBERS), "longitude": _value(_NUMBERS)})
_METADATA = st.dictionaries(st.sampled_from(["ts_human", "deviceType", "location"]), st.just(None), max_size=3).flatmap(
    lambda optional: _objects(
        {
            **{name: _value(_IDS) for name in ("siteId", "deviceId", "sensorId")},
            "unit": _value(_TEXTS),
            **{name: _value(_LOCATIONS if name == "location" else _TEXTS) for name in optional},
        }
    )
)
_READINGS = _objects(
    {
        "ts": _value(
            st.one_of(st.integers(0, 10**13).map(str), st.integers(0, 10**13).map(lambda n: f'"{n}"'), _NUMBERS)
        ),
        "metadata": _value(_METADATA),
        "measurement": _value(_NUMBERS),
    }
)


def _broken(text: str, cut: int, inserted: bytes) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    at = cut % (len(raw) + 1)
    return raw[:at] + inserted + raw[at:] if inserted else raw[:at]


PAYLOADS = st.one_of(
    _READINGS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    _READINGS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(_broken, _READINGS, st.integers(0, 10**4), st.binary(max_size=2)),
    st.binary(max_size=30),
)
