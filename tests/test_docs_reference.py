"""Every example of docs/reference.md is run, with the files beside it."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.preview import preview
from pipelines.reference_refresh import run_refresh
from tests.pipelines.event_time import START, Silver
from tests.test_docs_calculations import machines

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def declared(section: str) -> list[dict[str, Any]]:
    return [each for block in BLOCKS for each in tomllib.loads(block).get(section, [])]


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Silver:
    files = [r for r in declared("reference") if "file" in r]
    references = [{**each, "file": str(PAGE.parent / each["file"])} for each in files]
    silver = Silver(tmp_path_factory.mktemp("docs"), declared("calculation"), {"reference": references}, str(PAGE))
    silver.now = START + timedelta(minutes=20)
    silver.append([(sensor, float(second), 10.0) for second in range(0, 600, 10) for sensor in (0, 1)])
    silver.compute("gold.sensor_windows_1m")
    polls = silver.context.tables["silver.device_polls"]
    poll = {"device_id": "192.0.2.7:161", "observed_at": START, "received_at": START, "is_up": True, "poll_id": "p"}
    filled = {
        n: poll.get(n, "s" if t == pl.String else None if t.is_temporal() else 1) for n, t in polls.schema.items()
    }
    silver.append_frame(silver.context.tables["silver.machine_readings"], machines(silver))
    silver.compute("gold.machine_power")
    silver.append_frame(polls, pl.DataFrame([filled], schema=polls.schema).drop("batch_id"))
    for each in references:
        result = run_refresh(silver.context, silver.context.tables[f"reference.{each['name']}"])
        assert result.problem is None and result.rows > 0
    return silver


@pytest.mark.parametrize("name", [d["name"] for d in declared("calculation")])
def test_example_is_computed_and_previewed(silver: Silver, name: str) -> None:
    identifier = f"gold.{name}"
    silver.compute(identifier)
    rows = silver.rows(identifier)
    assert rows.height > 0
    assert [c for c in rows.columns if rows[c].is_null().all() and c != "corrected_at"] == []
    seen = preview(silver.context, name, timedelta(hours=2))
    key = silver.context.tables[identifier].key
    assert seen.sort(key).equals(rows.select(seen.columns)), "a preview is what is stored"


def test_calibration_keeps_the_reading(silver: Silver) -> None:
    silver.compute("gold.calibrated_readings")
    rows = silver.rows("gold.calibrated_readings").filter(pl.col("sensor_id") == 0)
    assert rows["measurement"].unique().to_list() == [10.0]
    assert rows["calibrated"].unique().to_list() == [10.0 * 1.02 - 0.5]
