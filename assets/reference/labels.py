"""reference.labels."""

import polars as pl

from assets.table import UTC_TIME, column, declare

labels = declare(
    layer="reference",
    name="labels",
    description="""
        One row a label: what people say of a span of time of a device, of one of its sensors, or of things of a group.

        Source: `secchi label`. A training leaves out what is confirmed or maintenance, and learns from false alarms: no
        threshold of the series will be below their scores.
    """,
    columns=(
        column("label_id", pl.String, "UUID of the label", required=True),
        column("kind", pl.String, "confirmed, false_alarm or maintenance", required=True),
        column("site_id", pl.Int64, "Site of the device; null where a group is meant"),
        column("device_id", pl.Int64, "Device; null where a group is meant"),
        column("sensor_id", pl.Int64, "Sensor; null for all sensors of the device"),
        column("from_at", UTC_TIME, "Start of the span", required=True),
        column("to_at", UTC_TIME, "End of the span, exclusive", required=True),
        column("note", pl.String, "What was found"),
        column("labelled_at", UTC_TIME, "When it was said", required=True),
        column("group_name", pl.String, "Group whose things are meant, e.g. interface; null where a device is"),
        column("things", pl.String, "JSON: columns of the group and the values of the things that are meant"),
    ),
    key=("label_id",),
    kinds=("iceberg", "reference"),
)
