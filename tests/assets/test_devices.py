"""The inventory of devices: where they stand, and what was right when."""

from datetime import UTC, datetime

import polars as pl
import pytest

from assets.locations import location_parts
from assets.reference.devices import devices
from assets.side_input import Versions

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
