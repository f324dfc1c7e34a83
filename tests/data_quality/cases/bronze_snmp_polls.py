"""Polls of one agent that answers."""

from datetime import timedelta

import polars as pl

from assets.bronze.snmp_polls import snmp_polls
from tests.data_quality.cases.changes import NOON, Case, every, put

TABLE = snmp_polls


def rows() -> pl.DataFrame:
    poll = {"target": "10.0.0.7:161", "module": "if-mib", "is_up": True, "duration_seconds": 0.1, "pdus": 2}
    cost = {"retries": 0, "timeouts": 0, "varbinds": 40, "missed": 0, "error": None}
    place = {"started_at": NOON, "received_at": NOON, "stream": "snmp/e", "sequence": 1, "ingested_at": NOON}
    rows = [{**poll, **cost, **place, "batch_id": 1, "poll_id": f"p{i}", "row": i} for i in range(20)]
    return pl.DataFrame(rows, TABLE.schema)


BAD: list[Case] = [
    (put(target="10.0.0.8:161", is_up=False), "Every agent that is polled has answered lately"),
    (put(missed=3), "99% of the polls are over before"),
    (put(error="walk of 1.3.6 was cut"), "99% of the polls are answered"),
    (every(ingested_at=NOON + timedelta(hours=1)), "Half of the rows come from received_at to ingested_at within"),
]
