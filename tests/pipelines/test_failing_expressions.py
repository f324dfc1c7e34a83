"""An expression that a row makes fail holds up its own table alone, and loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.micro_batch import MicroBatches
from tests.pipelines.event_time import Silver
from tests.pipelines.test_windows import NAME, definition

SOURCE = "silver.sensor_readings"
LEFT, RIGHT = ({"name": name, "from": SOURCE} for name in ("a", "b"))
FAILING: dict[str, dict[str, Any]] = {
    "window": definition("tumbling", name="failing", aggregate={"total": "sum(unit::integer)"}),
    "condition": definition("tumbling", name="failing", where="unit::integer > 1"),
    "row": {
        "name": "failing",
        "kind": "lookup",
        "from": SOURCE,
        "lookup": [{"name": "site", "from": "reference.sites"}],
        "select": {"whole": "unit::integer"},
    },
    "pair": {
        "name": "failing",
        "kind": "join",
        "by": ["site_id", "device_id", "sensor_id"],
        "within": "1m",
        "match": "all",
        "left": LEFT,
        "right": RIGHT,
        "select": {"whole": "a.unit::integer + b.sensor_id"},
    },
}
THRESHOLD = {"name": "failing", "from": SOURCE, "raise": "unit::integer > 1"}


def opened(folder: Path, calculations: list[dict[str, Any]], thresholds: list[dict[str, Any]]) -> Silver:
    (folder / "sites.csv").write_text(
        "site_id,name,region,ranking_score,latitude,longitude,time_zone\n101,A,b,1,2,3,\n"
    )
    sites = {"name": "sites", "file": str(folder / "sites.csv")}
    options = {"reference": [sites], "threshold": thresholds}
    return Silver(folder / "lake", [definition("tumbling"), *calculations], options)


@pytest.mark.parametrize("kind", [*FAILING, "threshold"])
def test_other_tables_go_on(tmp_path: Path, kind: str) -> None:
    silver = opened(tmp_path, *(([FAILING[kind]], []) if kind in FAILING else ([], [THRESHOLD])))
    silver.append([(0, 1.0, 2.0), (0, 2.0, 3.0)])
    errors = {r.table: r.error for r in MicroBatches(silver.context).drain() if r.error}
    column = "a.unit" if kind == "pair" else "unit"
    assert errors == {
        "gold.failing": "an expression fails on a row: Conversion Error: Could not convert string 'BAR' to INT32 when "
        f"casting from source column {column}; try_cast is null where cast fails"
    }
    assert silver.rows(NAME)["readings"].to_list() == [2]


def test_mended_expression_takes_the_rows_that_it_failed_on(tmp_path: Path) -> None:
    silver = opened(tmp_path, [FAILING["window"]], [])
    silver.append([(0, 1.0, 2.0)])
    assert any(r.error for r in MicroBatches(silver.context).drain())
    mended = definition(
        "tumbling", name="failing", aggregate={"total": "sum(try_cast(unit as integer))", "n": "count()"}
    )
    again = opened(tmp_path, [mended], [])
    again.append([(0, 2.0, 2.0)])
    MicroBatches(again.context).drain()
    assert again.rows("gold.failing").select("total", "n").rows() == [(None, 2)]


@pytest.mark.parametrize(
    ("told", "error", "reason"),
    [
        ("[1.0]", "gold.failing: rows do not fit ('found' is List(Float64), declared Float64): cannot cast List", None),
        ("'much'", None, "wrong_type"),
        ("7", None, None),
    ],
    ids=["list", "text", "whole"],
)
def test_function_that_gives_another_type(tmp_path: Path, told: str, error: str | None, reason: str | None) -> None:
    """What is a number of another kind is taken, a value that is none is quarantined, and no list is a number."""
    module = f"other_type_{len(told)}"
    (tmp_path / f"{module}.py").write_text(
        "import polars as pl\n\n\ndef rule(rows):\n"
        f"    by = ['site_id', 'device_id', 'sensor_id', 'window_start']\n"
        f"    return rows.group_by(by).agg(found=pl.lit({told}))\n"
    )
    wanted = definition("tumbling", name="failing", function=f"{module}:rule", columns={"found": "DOUBLE"})
    del wanted["aggregate"]
    silver = Silver(tmp_path / "lake", [wanted, definition("tumbling")], source=str(tmp_path / "secchi.toml"))
    silver.append([(0, 1.0, 2.0)])
    errors = [r.error for r in MicroBatches(silver.context).drain() if r.error]
    assert [found.startswith(error or "") and "\n" not in found for found in errors] == [True] * bool(error)
    refused = silver.stored("quarantine.records")["reason"].to_list() if reason else []
    assert refused == ([reason] if reason else [])
    if not error and not reason:
        assert silver.rows("gold.failing")["found"].to_list() == [7.0]
    assert silver.rows(NAME)["readings"].to_list() == [1]
