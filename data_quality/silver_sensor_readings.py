"""What is usual for silver.sensor_readings beyond its declaration: known units, possible values, clocks."""

from typing import Any

from assets.spellings import load_spellings
from data_quality.declared import expectation_types

POSSIBLE: dict[str, tuple[float | None, float | None]] = {
    "celsius": (-273.15, 5000),
    "fahrenheit": (-459.67, 9000),
    "kelvin": (0, 5000),
    "percent_relative_humidity": (0, 100),
    "parts_per_million": (0, 1_000_000),
    "hertz": (0, None),
    "litre": (0, None),
    "kilogram": (0, None),
    "bar": (-1.1, 10_000),
    "pascal": (-110_000, None),
    "decibel": (-200, 250),
}
"""Canonical unit to the lowest and highest value that a sensor can mean; pressures may be relative to the air's."""

MOST = 0.99
AHEAD_SECONDS = 5
REFERENCES = {"reference.sites": ("site_id",)}


def expectations() -> list[Any]:
    """Expectations beyond the contract. Those a historic load or a new sensor rightly fails are warnings."""
    gxe = expectation_types()
    known = sorted(set(load_spellings("unit").exact.values()))
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="unit_canonical",
            value_set=known,
            severity="warning",
            description="unit_canonical is a unit of assets/silver/spellings.toml",
        ),
        *(_possible(unit, *bounds) for unit, bounds in POSSIBLE.items()),
        gxe.ExpectColumnValuesToBeBetween(
            column="lag_seconds",
            min_value=-AHEAD_SECONDS,
            mostly=MOST,
            severity="warning",
            description=f"In {MOST:.0%} of the readings the sender's clock is at most {AHEAD_SECONDS} s ahead",
        ),
    ]


def _possible(unit: str, low: float | None, high: float | None) -> Any:
    from great_expectations.expectations.row_conditions import Column

    words = " and ".join(
        f"{side} {bound:g}" for side, bound in (("at least", low), ("at most", high)) if bound is not None
    )
    return expectation_types().ExpectColumnValuesToBeBetween(
        column="measurement",
        min_value=low,
        max_value=high,
        row_condition=Column("unit_canonical") == unit,
        description=f"A measurement in {unit} is {words}",
    )
