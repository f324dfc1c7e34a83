"""Where a device stands, as inventories and sysLocation write it: ``BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:42``.

Building, floor, then a room (``NR``) or a room of a data centre (``DCRN``), row, rack and unit, as far as known.
"""

import polars as pl

from assets.table import Column, column

_PARTS = {
    "building": ("BN", "Building"),
    "floor": ("FN", "Floor"),
    "room": ("NR|DCRN", "Room, also of a data centre"),
    "row": ("RN", "Row of racks"),
    "rack": ("RCKN", "Rack"),
    "unit": ("UN", "Unit of the rack"),
}


def location_columns(lineage: str | tuple[str, ...] = ()) -> tuple[Column, ...]:
    """The columns that a location is parsed into."""
    return tuple(
        column(name, pl.String, f"{what} ({tag.replace('|', ', ')}); null if the location tells none", lineage=lineage)
        for name, (tag, what) in _PARTS.items()
    )


def location_parts(location: str) -> dict[str, pl.Expr]:
    """The parts of the location in a column; null where it does not tell them, or is not of that grammar."""
    return {
        name: pl.col(location).str.extract(rf"(?:^|/)\s*(?:{tag}):\s*([^/]*[^/\s])", 1)
        for name, (tag, _) in _PARTS.items()
    }
