"""What holds of gold.interface_rates_1m: no link carries more than it can."""

from typing import Any

from data_quality.declared import expectation_types

MOST_UTILISATION = 1.1
"""Polls jitter, and some agents bring their counters up to date every 10 s only."""


def expectations() -> list[Any]:
    """Expectations beyond the contract; a wrong speed is the device's fault, so they are warnings."""
    gxe = expectation_types()
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=f"{way}_utilisation_ratio",
            max_value=MOST_UTILISATION,
            severity="warning",
            description=f"{way}_bits_per_second is at most {MOST_UTILISATION:g} times the speed of the link",
        )
        for way in ("in", "out")
    ]
