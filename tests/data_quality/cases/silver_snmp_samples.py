"""A counter of an agent and its sysUpTime, polled each minute."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from assets.silver.snmp_samples import snmp_samples
from tests.data_quality.cases.changes import NOON, Case, Change, every

TABLE = snmp_samples
_COUNTER, _UPTIME = "1.3.6.1.2.1.2.2.1.10.1", "1.3.6.1.2.1.1.3.0"


def polled(counts: list[int], uptimes: list[int | None] | None = None, data_type: str = "Counter32") -> pl.DataFrame:
    """Samples of a counter a minute apart, each with the agent's uptime in seconds; None where it was not polled."""
    seconds = uptimes if uptimes is not None else [1000 + 60 * i for i in range(len(counts))]
    found = [_sample(_COUNTER, i, count, data_type) for i, count in enumerate(counts)]
    found += [_sample(_UPTIME, i, 100 * up, "TimeTicks") for i, up in enumerate(seconds) if up is not None]
    return pl.DataFrame(found, TABLE.schema)


def _sample(oid: str, minute: int, value: int, data_type: str) -> dict[str, Any]:
    at = NOON + timedelta(minutes=minute)
    counted = {"counter_value": Decimal(value)} if data_type.startswith("Counter") else {}
    place = {"poll_id": f"p{minute}", "request_id": 1, "stream": "snmp/e", "sequence": 1, "row": minute, "batch_id": 1}
    named = {"object_name": "ifInOctets", "metric_value": str(value), "numeric_value": float(value), **counted}
    times = {"observed_at": at, "received_at": at}
    return {"device_id": "10.0.0.7:161", "metric_oid": oid, "data_type": data_type, **named, **times, **place}


def rows() -> pl.DataFrame:
    return polled([5, 9, 9, 20])


def _counted(*counts: int) -> Change:
    return lambda _: polled(list(counts))


BAD: list[Case] = [
    (_counted(5, 9, 8, 20), "A counter goes back only by a wrap or a restart"),
    (every(object_name=None), "50% of the values have a name"),
]
