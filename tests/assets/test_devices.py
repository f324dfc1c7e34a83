"""The inventory of devices: where they stand, and what was right when."""

from datetime import UTC, datetime

import polars as pl
import pytest

from assets.locations import location_parts
from assets.reference.devices import devices, polled_devices
from assets.side_input import Versions
from assets.silver.device_descriptions import device_descriptions

PARTS = ("building", "floor", "room", "row", "rack", "unit")
T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        ("BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:42", ("HQ", "1", "D2", "3", "4", "42")),
        ("BN:HQ/FN:0/NR:N1", ("HQ", "0", "N1", None, None, None)),
        ("BN: North Hall / FN: 2 / DCRN: A/RCKN:R 7", ("North Hall", "2", "A", None, "R 7", None)),
        ("BN:/FN:1/NR:", (None, "1", None, None, None, None)),
        ("Sitting on the Dock of the Bay", (None,) * 6),
        ("XRN:9/RCKN:4", (None, None, None, None, "4", None)),
        ("", (None,) * 6),
        (None, (None,) * 6),
    ],
)
def test_location_grammar(location: str | None, parts: tuple[str | None, ...]) -> None:
    frame = pl.DataFrame({"device_location": [location]}, schema={"device_location": pl.String})
    assert frame.select(**location_parts("device_location")).row(0) == parts


def inventory(*rows: tuple[str, str]) -> pl.DataFrame:
    texts = ("ip_address", "hostname", "device_type", "vendor", "model", "firmware_version", "updated_at")
    made = [{"device_id": device, "device_location": place, **dict.fromkeys(texts, "")} for device, place in rows]
    return pl.DataFrame(made)


def test_history_of_a_device_that_is_moved() -> None:
    function = devices.function
    assert isinstance(function, Versions)
    first = function.given(inventory(("sw1:161", "BN:HQ/FN:1/NR:A"), ("sw2:161", "BN:HQ/FN:2/NR:B")))
    rows, _ = function(pl.DataFrame(schema=devices.schema), first, T0, 1)
    moved = function.given(inventory(("sw1:161", "BN:HQ/FN:9/NR:A"), ("sw2:161", "BN:HQ/FN:2/NR:B")))
    later = T0.replace(hour=18)
    rows, since = function(rows, moved, later, 2)
    told = rows.sort("device_id", "valid_from").select("device_id", "floor", "valid_to").rows()
    assert since == later
    assert told == [("sw1:161", "1", later), ("sw1:161", "9", None), ("sw2:161", "2", None)]
    assert set(PARTS) < set(rows.columns)


def described(*rows: tuple[str, int, str | None, str | None, str | None]) -> pl.DataFrame:
    """Rows of silver.device_descriptions: device, minute, sysName, sysLocation, sysObjectID."""
    names = ("device_id", "observed_at", "sys_name", "sys_location", "sys_object_id")
    made = [dict(zip(names, (each[0], T0.replace(minute=each[1]), *each[2:]), strict=True)) for each in rows]
    return pl.DataFrame(made, schema=device_descriptions.schema)


def test_what_agents_tell_is_right_until_they_tell_otherwise() -> None:
    rows = polled_devices(
        device_descriptions=described(
            ("10.0.0.7:161", 0, "sw-1", "BN:HQ", None),
            ("10.0.0.7:161", 5, None, "BN:HQ", "1.3.6.1.4.1.9.1.516"),
            ("10.0.0.7:161", 9, "sw-1", "BN:HQ", "1.3.6.1.4.1.9.1.516"),
            ("10.0.0.7:161", 20, "sw-1", "", "1.3.6.1.4.1.9.1.516"),
        )
    )
    told = rows.select(pl.col("valid_from").dt.minute(), "hostname", "device_location", "vendor").rows()
    assert told == [(0, "sw-1", "BN:HQ", None), (5, "sw-1", "BN:HQ", "Cisco"), (20, "sw-1", None, "Cisco")]


@pytest.mark.parametrize(
    ("device", "address"),
    [
        ("10.0.0.7:161", "10.0.0.7"),
        ("10.0.0.7:161@vlan-1", "10.0.0.7"),
        ("[2001:db8::7]:161", "2001:db8::7"),
        ("sw1.example.net:161", None),
    ],
)
def test_the_address_of_a_polled_device(device: str, address: str | None) -> None:
    rows = polled_devices(device_descriptions=described((device, 0, "a", None, "1.3.6.1.4.1.99999.1")))
    assert rows.select("ip_address", "vendor").row(0) == (address, None)


def test_a_file_comes_before_what_agents_tell() -> None:
    function = devices.function
    assert isinstance(function, Versions)
    told = polled_devices(
        device_descriptions=described(
            ("sw1:161", 0, "old", "BN:B/RCKN:1", None),
            ("sw1:161", 5, "new", "BN:B/RCKN:1", None),
            ("sw2:161", 5, "two", "BN:C", None),
        )
    )
    file = function.given(inventory(("sw1:161", "BN:HQ/FN:9"), ("sw3:161", "")))
    both = function.beside(file, told).sort("device_id").select("device_id", "hostname", "building", "rack").rows()
    assert both == [("sw1:161", "new", "HQ", None), ("sw2:161", "two", "C", None), ("sw3:161", None, None, None)]
    dated = function.given(inventory(("sw1:161", "BN:HQ")).with_columns(since=pl.lit("2026-01-05")), "since")
    both = function.beside(dated, told).sort("device_id").select("device_id", "hostname", "building").rows()
    assert both == [("sw1:161", None, "HQ"), ("sw2:161", "two", "C")], "a source that tells times is believed"
