"""silver.device_polls."""

from dataclasses import replace
from datetime import timedelta

import polars as pl

from assets.bronze.snmp_polls import snmp_polls
from assets.table import Outputs, table
from resources.stored_table import Partition

_POSITION = ("stream", "sequence", "row")
_RENAMED = {"target": "device_id", "started_at": "observed_at"}
_TAKEN = [c for c in snmp_polls.columns if c.name not in (*_POSITION, "ingested_at", "batch_id")]
_COLUMNS = tuple(
    replace(c, name=_RENAMED.get(c.name, c.name), lineage=(f"{snmp_polls.identifier}.{c.name}",)) for c in _TAKEN
)


@table(
    layer="silver",
    columns=_COLUMNS,
    inputs=(snmp_polls,),
    key=("device_id", "poll_id"),
    series=("device_id",),
    sender=("device_id",),
    time="observed_at",
    value=("is_up",),
    partitions=(Partition("observed_at", "day"),),
    sort=("observed_at", "device_id", *_POSITION),
    kinds=("iceberg", "silver", "polars", "snmp"),
    freshness=timedelta(minutes=5),
)
def device_polls(polls: pl.DataFrame) -> Outputs:
    """One row a poll of one module of an SNMP agent: whether it answered, how long it took, what it cost.

    Source: `bronze.snmp_polls`, one for one, in event time. A device that is silent has rows here, too, so its time
    goes on.
    """
    rejects = pl.DataFrame(
        schema={**{n: polls.schema[n] for n in _POSITION}, "reason": pl.String, "message": pl.String}
    )
    return Outputs(polls.rename(_RENAMED).select(*(c.name for c in _COLUMNS), *_POSITION), rejects)
