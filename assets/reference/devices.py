"""reference.devices."""

import polars as pl

from assets.locations import location_columns, location_parts
from assets.side_input import side_input
from assets.table import UTC_TIME, column

devices = side_input(
    name="devices",
    description="""
        One row a network device of the inventory and time in which it was right: what it is and where it stands.

        Source: `[[reference]]` with name = "devices". `device_id` is the one of polls, `host:port`.
    """,
    key=("device_id",),
    columns=(
        column("device_id", pl.String, "Agent as host:port, as polls name it", required=True),
        column("ip_address", pl.String, "Address, as the inventory has it"),
        column("hostname", pl.String, "Name of the host"),
        column("device_location", pl.String, "Location as it came, e.g. BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:42"),
        column("device_type", pl.String, "Kind of device"),
        column("vendor", pl.String, "Who made it"),
        column("model", pl.String, "Model"),
        column("firmware_version", pl.String, "Version of its firmware"),
        column("updated_at", UTC_TIME, "When the inventory says that it was looked at"),
    ),
    derived=location_columns(),
    derive=location_parts("device_location"),
)
