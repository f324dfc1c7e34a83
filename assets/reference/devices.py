"""reference.devices."""

import tomllib
from functools import cache
from importlib.resources import files

import polars as pl

from assets.locations import location_columns, location_parts
from assets.side_input import VALID_FROM, side_input
from assets.silver.device_descriptions import device_descriptions
from assets.table import UTC_TIME, column

_ENTERPRISES = "1.3.6.1.4.1."
_ADDRESSES = (r"^(\d+\.\d+\.\d+\.\d+):", r"^\[([^\]]+)\]:")
_POLLED = {
    "hostname": "sys_name",
    "device_location": "sys_location",
    "object_id": "sys_object_id",
    "description": "sys_descr",
    "contact": "sys_contact",
}


@cache
def _vendors() -> dict[str, str]:
    """Enterprise number, the part of sysObjectID that IANA gives to a maker, to its name."""
    return tomllib.loads(files("assets.reference").joinpath("vendors.toml").read_text("utf-8"))


def polled_devices(*, device_descriptions: pl.DataFrame) -> pl.DataFrame:
    """What agents tell of themselves as rows of the inventory, each from the time that it is told otherwise.

    A fact counts until the agent tells another one; the address is that of ``device_id``, where it is one.
    """
    facts = [pl.col(told).forward_fill().over("device_id").replace("", None).alias(n) for n, told in _POLLED.items()]
    rows = device_descriptions.filter(~pl.col("is_retracted").fill_null(False)).sort("device_id", "observed_at")
    rows = rows.select("device_id", pl.col("observed_at").alias(VALID_FROM), *facts)
    is_first = pl.col("device_id").ne_missing(pl.col("device_id").shift(1))
    has_changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in _POLLED)
    number = pl.col("object_id").str.strip_prefix(_ENTERPRISES).str.split(".").list.first()
    is_of_a_maker = pl.col("object_id").str.starts_with(_ENTERPRISES)
    address = pl.coalesce(pl.col("device_id").str.extract(each) for each in _ADDRESSES)
    return rows.filter(is_first | has_changed).with_columns(
        ip_address=address,
        vendor=pl.when(is_of_a_maker).then(number.replace_strict(_vendors(), default=None, return_dtype=pl.String)),
    )


devices = side_input(
    name="devices",
    description="""
        One row a network device of the inventory and time in which it was right: what it is and where it stands.

        Source: what agents tell of themselves (`silver.device_descriptions`), from the time of the poll; and
        `[[reference]]` with name = "devices", which comes first where it gives a value. `device_id` is the one of
        polls, `host:port`.
    """,
    key=("device_id",),
    columns=(
        column("device_id", pl.String, "Agent as host:port, as polls name it", required=True),
        column("ip_address", pl.String, "Address, as the inventory has it, else the one that is polled"),
        column("hostname", pl.String, "Name of the host, else sysName"),
        column(
            "device_location",
            pl.String,
            "Location as it came, e.g. BN:HQ/FN:1/DCRN:D2/RN:3/RCKN:4/UN:42, else sysLocation",
        ),
        column("device_type", pl.String, "Kind of device"),
        column("vendor", pl.String, "Who made it, else whose sysObjectID it is"),
        column("model", pl.String, "Model"),
        column("firmware_version", pl.String, "Version of its firmware"),
        column("updated_at", UTC_TIME, "When the inventory says that it was looked at"),
    ),
    derived=location_columns(),
    derive=location_parts("device_location"),
    references=(device_descriptions,),
    told=polled_devices,
    told_alone=(
        column("object_id", pl.String, "What kind of device it is, by its maker: sysObjectID"),
        column("description", pl.String, "What it is, in its own words: sysDescr"),
        column("contact", pl.String, "Who looks after it, as it says: sysContact"),
    ),
)
