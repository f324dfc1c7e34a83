"""reference.sites."""

import polars as pl

from assets.side_input import side_input
from assets.table import column

sites = side_input(
    name="sites",
    description="""
        One row a site and time in which it was right: its name, where it stands and how it ranks.

        Source: `[[reference]]` with name = "sites"; `secchi simulate factory --site-list` writes the simulated ones.
    """,
    key=("site_id",),
    columns=(
        column("site_id", pl.Int64, "Site, as readings name it", required=True),
        column("name", pl.String, "What people call it", required=True),
        column("region", pl.String, "Region it belongs to"),
        column("ranking_score", pl.Float64, "How it ranks among the sites; the more, the better"),
        column("latitude", pl.Float64, "Degrees north of the equator, WGS 84", minimum=-90, maximum=90),
        column("longitude", pl.Float64, "Degrees east of Greenwich, WGS 84", minimum=-180, maximum=180),
        column("time_zone", pl.String, "Offset from UTC or IANA name, e.g. +02:00 or Africa/Johannesburg"),
    ),
)
