"""Values as their textual conventions show them (RFC 2579)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysnmp.proto.rfc1902 import OctetString
from pysnmp.smi.builder import MibBuilder

from assets.snmp_text import bit_names, date_text, hinted_integer, octets_text


@pytest.mark.parametrize(
    ("form", "octets", "text"),
    [
        ("1x:", "0011224142ff", "00:11:22:41:42:ff"),
        ("1x:", "", ""),
        ("255a", "4c6f6f7000", "Loop"),
        ("255t", "c3a9", "é"),
        ("255a", "ff00", "0xff"),
        ("1d.1d.1d.1d", "c0a80001", "192.168.0.1"),
        ("1d.1d.1d.1d/2d", "c0a8000100a1", "192.168.0.1/161"),
        ("2x:2x:2x:2x:2x:2x:2x:2x", "20010db8000000000000000000000001", "2001:0db8:0000:0000:0000:0000:0000:0001"),
        ("1d.1d.1d.1d%4d", "0a00000100000003", "10.0.0.1%3"),
        ("4x-2x-2x-1x1x-6x", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"),
        ("*1x:/1x:", "02aabb01cc", "aa:bb/01:cc"),
        ("1o,", "08ff", "10,377"),
        ("no hint", "476930", "Gi0"),
        ("date", "07c8051a0d1e0f00", "1992-05-26T13:30:15.000"),
        ("date", "07c8051a0d1e0f002d0400", "1992-05-26T13:30:15.000-04:00"),
        ("date", "07c8051a0d1e3c092b0530", "1992-05-26T13:30:59.900+05:48"),
        ("date", "07c80d1a0d1e0f00", "0x07c80d1a0d1e0f00"),
        ("date", "07c8", "0x07c8"),
        ("inet", "0a000001", "10.0.0.1"),
        ("inet", "20010db8000000000000000000000001", "2001:db8::1"),
        ("inet", "fe80000000000000000000000000000100000002", "fe80::1%2"),
        ("inet", "686f7374", "104.111.115.116"),
        ("inet", "612e6578616d706c65", "a.example"),
        ("bits", "c0", "0xc0"),
        (None, "476900", "0x476900"),
    ],
)
def test_octets(form: str | None, octets: str, text: str) -> None:
    assert octets_text(bytes.fromhex(octets), form) == text


@pytest.mark.parametrize(
    ("hint", "number", "text"),
    [
        ("d", -5, "-5"),
        ("d-2", 1234, "12.34"),
        ("d-2", -4, "-0.04"),
        ("d-0", 7, "7"),
        ("x", 255, "ff"),
        ("o", 8, "10"),
        ("b", 5, "101"),
        ("255a", 5, None),
        (None, 5, None),
    ],
)
def test_integers(hint: str | None, number: int, text: str | None) -> None:
    assert hinted_integer(number, hint) == text


@pytest.mark.parametrize(("octets", "names"), [("c0", "a,b"), ("0140", "7,j"), ("00", None), ("", None), ("8000", "a")])
def test_bits(octets: str, names: str | None) -> None:
    assert bit_names(bytes.fromhex(octets), {"0": "a", "1": "b", "9": "j"}) == names


@given(
    st.binary(max_size=40), st.sampled_from(["1x:", "*1d.2x", "2d-1d-1d,1d:1d:1d.1d,1a1d:1d", "0a1x", "date", "inet"])
)
def test_any_octets_are_shown(value: bytes, form: str) -> None:
    shown = octets_text(value, form)
    assert isinstance(shown, str) and (shown or not value)
    assert date_text(value) is None or len(value) in (8, 11)


@given(st.binary(min_size=1, max_size=30))
def test_addresses_are_shown_as_pysnmp_shows_them(value: bytes) -> None:
    assert octets_text(value, "1x:") == _pysnmp_text(value)


def _pysnmp_text(value: bytes) -> Any:
    (convention,) = MibBuilder().import_symbols("SNMPv2-TC", "PhysAddress")
    return convention().clone(OctetString(value)).prettyPrint()
