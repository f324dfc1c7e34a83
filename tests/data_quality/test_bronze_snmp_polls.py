from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.bronze.snmp_polls import snmp_polls
from data_quality.suites import run_suite

AT = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = {
    **{"target": "10.0.0.7:161", "module": "if-mib", "is_up": True, "duration_seconds": 0.1, "pdus": 2, "retries": 0},
    **{"timeouts": 0, "varbinds": 40, "missed": 0, "error": None, "started_at": AT, "received_at": AT},
    **{"stream": "snmp/e", "sequence": 1, "ingested_at": AT, "batch_id": 1},
}


def polls(*changes: dict[str, Any]) -> pl.DataFrame:
    rows = [{**GOOD, "poll_id": f"p{i}", "row": i, **change} for i, change in enumerate(changes)]
    return pl.DataFrame(rows, snmp_polls.schema)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ([{}, {}], []),
        ([{"is_up": False, "error": "x"}, *[{}] * 199], []),
        ([{"target": "10.0.0.8:161", "is_up": False, "error": "x"}, *[{}] * 199], ["Every agent that is polled"]),
        ([{"missed": 3}, {}], ["99% of the polls are over"]),
        ([{"error": "walk of 1.3.6 was cut"}, {}], ["99% of the polls are answered"]),
    ],
)
def test_what_is_told_of_polls(tmp_path: Path, changes: list[dict[str, Any]], failed: list[str]) -> None:
    result = run_suite(snmp_polls, polls(*changes), tmp_path / "page.html")
    told = [each["description"] for each in result.expectations if not each["success"]]
    assert [text for text, start in zip(told, failed, strict=True) if not text.startswith(start)] == []
