"""Polls in event time."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from assets.bronze.snmp_polls import snmp_polls
from assets.silver.device_polls import device_polls
from pipelines.quarantine import reject_rows, restore_rows
from tests.pipelines.event_time import Silver

AT = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def test_a_poll_keeps_what_it_says() -> None:
    given = {"target": "sw1:161", "poll_id": "p", "is_up": False, "timeouts": 2, "error": "silent", "started_at": AT}
    polls = pl.DataFrame([{n: given.get(n) for n in snmp_polls.schema}], schema=snmp_polls.schema)
    assert device_polls.function is not None
    rows, rejects = device_polls.function(polls)
    (row,) = rows.to_dicts()
    assert (row["device_id"], row["observed_at"], row["is_up"], row["error"]) == ("sw1:161", AT, False, "silent")
    assert set(rows.columns) == set(device_polls.schema) - {"batch_id"}
    assert rejects.is_empty()


def test_a_poll_of_a_wrong_clock_can_be_replayed(tmp_path: Path) -> None:
    """It has no bytes of its own: all of it stands among the attributes."""
    given = {"target": "sw1:161", "is_up": True, "duration_seconds": 0.25, "started_at": AT, "received_at": AT}
    row = {**{n: given.get(n) for n in snmp_polls.schema}, "stream": "s", "sequence": 1, "row": 0}
    source = pl.DataFrame([row], schema=snmp_polls.schema).drop("ingested_at", "batch_id")
    why = {"reason": pl.lit("time_too_early"), "message": pl.lit("")}
    rejects = source.select("stream", "sequence", "row").with_columns(**why)
    kept = reject_rows(Silver(tmp_path).context, device_polls, source, rejects)
    assert kept["raw"].to_list() == [b""]
    assert restore_rows(snmp_polls, kept).select(source.columns).equals(source)
