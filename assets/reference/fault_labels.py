"""reference.fault_labels."""

import io
from collections.abc import Sequence
from typing import Any

import polars as pl

from assets.table import UTC_TIME, column, table
from resources.errors import ConfigurationError

_READ = {
    "site_id": pl.Int64,
    "device_id": pl.Int64,
    "started_at": pl.String,
    "ended_at": pl.String,
    "fault": pl.String,
}


def _read(entry: dict[str, Any]) -> pl.DataFrame:
    place = f"fault_labels: {entry['file']}"
    try:
        rows = pl.read_csv(io.BytesIO(entry["content"]), schema_overrides=_READ)
        if missing := sorted(_READ.keys() - set(rows.columns)):
            raise ConfigurationError(f"{place}: has no column {missing[0]!r}; must have {', '.join(_READ)}")
        times = pl.col("started_at", "ended_at").str.to_datetime(time_unit="us", time_zone="UTC")
        rows = rows.select(*_READ).with_columns(times)
    except pl.exceptions.PolarsError as error:
        raise ConfigurationError(f"{place}: {error}") from error
    if rows.filter(pl.any_horizontal(pl.all().is_null()) | (pl.col("ended_at") < pl.col("started_at"))).height:
        raise ConfigurationError(f"{place}: has a line with an empty value, or that ends before it starts")
    return rows


@table(
    layer="reference",
    columns=(
        column("site_id", pl.Int64, "Site of the device", required=True),
        column("device_id", pl.Int64, "Device that misbehaved", required=True),
        column("started_at", UTC_TIME, "When it began to", required=True),
        column("ended_at", UTC_TIME, "When it was right again; not part of the fault", required=True),
        column("fault", pl.String, "What it was, e.g. drift, spikes, stuck, noise or drop_out", required=True),
    ),
    key=("site_id", "device_id", "started_at"),
    configuration="fault_labels",
    kinds=("iceberg", "reference"),
)
def fault_labels(entries: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """One row a time in which a device is known to have misbehaved.

    Source: the CSV files of `[[fault_labels]]`, such as `secchi simulate factory --labels` writes. The table is what
    the files say now; of two lines for one device and start the first is taken.
    """
    empty = pl.DataFrame(schema={**_READ, "started_at": UTC_TIME, "ended_at": UTC_TIME})
    rows = pl.concat([empty, *(_read(entry) for entry in entries)])
    return rows.unique(fault_labels.key, keep="first", maintain_order=True)
