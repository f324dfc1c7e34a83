"""Every example of docs/calculations.md, and the README's, is run."""

import re
import runpy
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.preview import preview
from resources.duckdb import connect
from tests.pipelines.event_time import START, Silver

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "calculations.md"
BLOCKS = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
README = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
DEFINITIONS: list[dict[str, Any]] = [
    d for block in (*BLOCKS, *README) for d in tomllib.loads(block).get("calculation", [])
]


def machines(silver: Silver) -> pl.DataFrame:
    table = silver.context.tables["silver.machine_readings"]
    made = [
        {
            "thing": "R0815",
            "quantity": quantity,
            "axis": "C11",
            "observed_at": START + timedelta(milliseconds=100 * i),
            "received_at": silver.now,
            "value": float(i % 300),
            "stream": "s",
            "sequence": 1,
            "row": i,
        }
        for i in range(1000)
        for quantity in ("actSpeed", "vaTorque")
    ]
    return pl.DataFrame(made, schema=table.schema).drop("batch_id")


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Silver:
    silver = Silver(tmp_path_factory.mktemp("docs"), DEFINITIONS, source=str(PAGE))
    silver.now = START + timedelta(minutes=20)
    readings = [(s, float(t), float((t * 31 + s) % 240)) for t in range(0, 1200, 3) for s in (0, 1, 2)]
    unit = pl.when(pl.col("sensor_id") < 2).then(pl.lit("celsius")).otherwise(pl.lit("bar"))
    frame = silver.frame(readings).with_columns(unit_canonical=unit)
    silver.append_frame(silver.readings, frame)
    silver.append_frame(silver.context.tables["silver.machine_readings"], machines(silver))
    return silver


@pytest.mark.parametrize("name", [d["name"] for d in DEFINITIONS])
def test_example_is_computed_and_previewed(silver: Silver, name: str) -> None:
    identifier = f"gold.{name}"
    parts = [t.identifier for t in silver.context.tables[identifier].inputs if t.layer == "gold"]
    silver.compute(*parts, identifier)
    rows = silver.rows(identifier)
    assert rows.height > 0 and not any(
        rows[column].is_null().all() for column in rows.columns if column != "corrected_at"
    )
    table = silver.context.tables[identifier]
    seen = preview(silver.context, name, timedelta(days=1))
    assert seen.sort(table.key).equals(rows.select(seen.columns)), "a preview is what is stored"


def test_every_aggregate_of_ours_has_an_example() -> None:
    text = PAGE.read_text()
    for name in ("delta", "rate", "slope", "time_weighted_mean", "share_of_time", "histogram", "quantile"):
        assert any(f"{name}(" in expression for d in DEFINITIONS for expression in d.get("aggregate", {}).values()), (
            name
        )
        assert f"`{name}(" in text


def test_function_of_the_page_is_the_file_beside_it() -> None:
    source = (ROOT / "docs" / "examples" / "furnace.py").read_text()
    block = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)[0]
    assert source.endswith(block)


@pytest.mark.parametrize(
    ("measured", "longest"), [([7.0, 190.0, 191.0, 9.0, 200.0], 2.0), ([7.0, 8.0, 9.0], 0.0)], ids=["hot", "never hot"]
)
def test_function_of_the_page_counts_hot_runs_only(measured: list[float], longest: float) -> None:
    rows = pl.DataFrame({"site_id": 1, "device_id": 1, "sensor_id": 1, "window_start": 0, "measurement": measured})
    soak = runpy.run_path(str(ROOT / "docs" / "examples" / "furnace.py"))["soak"]
    assert soak(rows).select("longest", "hottest").row(0) == (longest, max(measured))


def test_views_show_the_examples(silver: Silver) -> None:
    """A list of counts can be queried like any other column."""
    silver.compute("gold.oven_states_1h")
    connection = connect(silver.context.lakehouse, (t.stored for t in silver.context.tables.values()))
    found = connection.sql("SELECT levels, list_sum(levels) FROM gold.oven_states_1h ORDER BY sensor_id").fetchall()
    assert found == [(levels, sum(levels)) for levels in silver.rows("gold.oven_states_1h")["levels"].to_list()]


def test_sketches_are_asked_by_sql(silver: Silver) -> None:
    silver.compute("gold.pressure_1m", "gold.pressure_1d")
    (query,) = re.findall(r"`(select sketch_quantile.*?)`", PAGE.read_text())
    connection = connect(silver.context.lakehouse, (t.stored for t in silver.context.tables.values()))
    exact = "select quantile_cont(measurement, 0.99) from silver.sensor_readings group by site_id"
    ((found,),), ((right,),) = connection.sql(query).fetchall(), connection.sql(exact).fetchall()
    assert found == pytest.approx(right, rel=0.01)
