"""Every example of docs/thresholds.md is run."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.preview import preview
from pipelines.tracing import trace
from resources.duckdb import connect
from tests.pipelines.event_time import START, Silver

PAGE = Path(__file__).resolve().parents[1] / "docs" / "thresholds.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
DEFINITIONS: list[dict[str, Any]] = [d for block in BLOCKS for d in tomllib.loads(block)["threshold"]]
(QUERY,) = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
WINDOWS = "gold.sensor_windows_1m"


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Silver:
    silver = Silver(tmp_path_factory.mktemp("docs"), (), {"threshold": DEFINITIONS}, source=str(PAGE))
    silver.now = START + timedelta(minutes=30)
    values = [(s, float(60 * minute), 200.0 if 3 <= minute < 9 else 100.0) for minute in range(15) for s in (0, 1)]
    silver.append(values)
    silver.now += timedelta(minutes=2)
    silver.compute(WINDOWS, *(f"gold.{d['name']}" for d in DEFINITIONS), "gold.threshold_events")
    return silver


def test_page_names_every_key() -> None:
    keys = {key for definition in DEFINITIONS for key in definition} - {"name"}
    assert {key for key in keys if f"| `{key}` |" not in PAGE.read_text()} == set()


@pytest.mark.parametrize("name", [d["name"] for d in DEFINITIONS])
def test_example_is_computed_and_previewed(silver: Silver, name: str) -> None:
    rows = silver.rows(f"gold.{name}")
    assert rows.height == 2 and rows["raised_at"].null_count() == 0
    table = silver.context.tables[f"gold.{name}"]
    seen = preview(silver.context, name, timedelta(hours=2))
    assert seen.sort(table.key).equals(rows.select(seen.columns)), "a preview is what is stored"


def test_query_shows_what_is_raised(silver: Silver) -> None:
    connection = connect(silver.context.lakehouse, (t.stored for t in silver.context.tables.values()))
    severity, name, series, raised_at, message = connection.sql(QUERY).fetchall()[0]
    assert (severity, name, series) == ("error", "sensor_silent", "101/1/0/BAR")
    assert raised_at == START + timedelta(minutes=19)
    assert message == "Sensor 0 of device 1 sent nothing for 5 minutes; its last value was 100.0"


def test_event_is_traced_to_its_windows(silver: Silver) -> None:
    found = trace(silver.context, "gold.threshold_events", {"threshold": "pressure_high", "series": "101/1/0/BAR"})
    (episodes,) = (origin for origin in found.origins if origin.rows.height)
    (windows,) = episodes.origins
    assert windows.table.identifier == WINDOWS
    at = [START + timedelta(minutes=minute) for minute in range(3, 10)]
    assert windows.rows["window_start"].sort().to_list() == at
