"""reference.calibrations."""

import polars as pl

from assets.side_input import side_input
from assets.table import column

calibrations = side_input(
    name="calibrations",
    description="""
        One row a calibration of a sensor: true value = reading * factor + offset, from valid_from to valid_to.

        Source: `[[reference]]` with name = "calibrations". The reading itself is never changed by it.
    """,
    key=("site_id", "device_id", "sensor_id"),
    columns=(
        column("site_id", pl.Int64, "Site of the device", required=True),
        column("device_id", pl.Int64, "Device of the sensor", required=True),
        column("sensor_id", pl.Int64, "Sensor that was calibrated", required=True),
        column("factor", pl.Float64, "What a reading is multiplied with first", required=True),
        column("offset", pl.Float64, "What is added then, in the unit of the reading", required=True),
    ),
)
