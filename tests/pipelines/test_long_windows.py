"""Long windows that are made of shorter ones equal those of the rows, and read only the windows that changed."""

import shutil
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings

from assets.catalog import load_tables
from resources.errors import ConfigurationError
from resources.quantile_sketch import RELATIVE_ERROR
from resources.stored_table import StoredTable
from tests.pipelines.event_time import START, Row, Silver, aligned, carry_through
from tests.pipelines.test_windows import NAME, arrivals, crashes, definition, distinct

LONG = "gold.longer"
MERGED = {
    "readings": "sum(readings)",
    "total": "sum(total)",
    "last": "last(last)",
    "spread": "sketch_merge(spread)",
    "p90": "sketch_quantile(spread, 0.9)",
}
WINDOWS: dict[str, tuple[dict[str, Any], int, int]] = {
    "tumbling": ({"kind": "tumbling", "size": "60s"}, 60, 60),
    "sliding": ({"kind": "sliding", "size": "60s", "slide": "20s"}, 60, 20),
}


def short(**changes: Any) -> dict[str, Any]:
    made = definition("tumbling", **changes)
    return {**made, "aggregate": {**made["aggregate"], "spread": "sketch(measurement)"}}


def longer(kind: str = "tumbling", **changes: Any) -> dict[str, Any]:
    made = {"name": "longer", "from": NAME, "window": WINDOWS[kind][0], "aggregate": MERGED, **changes}
    return {**short(), **made}


def carried(folder: Path, kind: str, batches: list[list[Row]], crashed: Sequence[tuple[int, bool]] = ()) -> Silver:
    silver = Silver(folder, [longer(kind), short()])
    for i, batch in enumerate(batches):
        silver.append(batch)
        carry_through(silver, crashed[i] if i < len(crashed) else None, lambda: silver.compute(NAME, LONG))
    return silver


def expected(kind: str, rows: list[Row]) -> list[tuple[Any, ...]]:
    timed = [(sensor, START + timedelta(seconds=second), value) for sensor, second, value in rows]
    _, size, slide = WINDOWS[kind]
    found = aligned(timed, timedelta(seconds=size), timedelta(seconds=slide))
    return sorted(
        (sensor, start, end, len(held), float(sum(v for _, v in held)), held[-1][1])
        for (sensor, start), (end, held) in found.items()
    )


def computed(silver: Silver) -> list[tuple[Any, ...]]:
    columns = ("sensor_id", "window_start", "window_end", "readings", "total", "last")
    return sorted(silver.rows(LONG).select(columns).rows())


def assert_sketches_equal(silver: Silver, kind: str, rows: list[Row]) -> None:
    """Sketches that were merged are those of all rows at once, their quantiles near the exact ones."""
    whole = definition("tumbling", name="whole", window=WINDOWS[kind][0])
    whole["aggregate"] = {"spread": "sketch(measurement)", "p90": "quantile(measurement, 0.9)"}
    other = Silver(silver.folder / "whole", [whole])
    other.append(rows)
    other.compute("gold.whole")
    merged, exact = silver.rows(LONG), other.rows("gold.whole")
    assert merged["spread"].to_list() == exact["spread"].to_list()
    for found, right in zip(merged["p90"], exact["p90"], strict=True):
        assert abs(found - right) <= 1.0001 * RELATIVE_ERROR * right


@pytest.mark.parametrize("kind", WINDOWS)
@given(arrivals, crashes)
@example([[(0, 59), (0, 130)], [(0, 60), (1, 10)], [(0, 0), (0, 58)]], [(2, True)])
@settings(max_examples=4)
def test_any_arrival_equals_the_windows_of_the_rows(
    kind: str, batches: list[list[tuple[int, int]]], crashed: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        rows = distinct(batches)
        silver = carried(folder, kind, rows, crashed)
        assert computed(silver) == expected(kind, [row for batch in rows for row in batch])
        assert_sketches_equal(silver, kind, [row for batch in rows for row in batch])
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", WINDOWS)
def test_comparison_bites(tmp_path: Path, kind: str) -> None:
    rows: list[Row] = [(0, second, float(second)) for second in range(0, 100, 5)]
    silver = carried(tmp_path, kind, [rows])
    assert computed(silver) == expected(kind, rows) != expected(kind, rows[1:])


def test_only_the_windows_of_the_long_one_are_read(tmp_path: Path) -> None:
    silver = carried(tmp_path, "tumbling", [[(0, second, 1.0) for second in range(2000)]])
    read: list[tuple[str, int]] = []
    original = silver.context.lakehouse.read_files

    def read_files(stored: StoredTable, *args: Any, **options: Any) -> pl.DataFrame:
        found = original(stored, *args, **options)
        read.append((stored.name, found.height))
        return found

    silver.append([(0, 2000, 1.0)])
    silver.compute(NAME)
    silver.context.lakehouse.read_files = read_files  # type: ignore[method-assign]
    silver.compute(LONG)
    assert max(height for name, height in read if name == "measured") <= 6
    assert "sensor_readings" not in dict(read)


def test_long_window_is_final_behind_the_lateness_of_its_parts(tmp_path: Path) -> None:
    silver = Silver(tmp_path, [short(lateness="30s"), longer()])
    silver.append([(0, 0, 1.0), (0, 80, 1.0)])
    silver.compute(NAME, LONG)
    assert not silver.rows(LONG)["is_final"].any()
    silver.append([(0, 90, 1.0)])
    silver.compute(NAME, LONG)
    assert silver.rows(LONG)["is_final"].to_list() == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"window": {"kind": "tumbling", "size": "30s"}},
            "window.size must be a multiple of the 20s of gold.measured, got",
        ),
        (
            {"window": {"kind": "sliding", "size": "1m", "slide": "30s"}},
            "window.slide must be a multiple of the 20s of gold.measured, got 30s",
        ),
        ({"window": {"kind": "session", "gap": "1m", "max": "1h"}}, "only tumbling or sliding ones can be aggregated"),
        ({"aggregate": {"x": "sum(measurement)"}}, "names 'measurement', which is no column"),
        ({"from": "gold.moving"}, "from: 'gold.moving' has no rows that windows can be made of"),
        ({"from": "ops.watermarks"}, "from: 'ops.watermarks' has no rows that windows can be made of"),
        ({"from": "gold.longer"}, "calculations go in a circle: gold.longer from gold.longer; one must read another"),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_tables([longer(**changes), short(), definition("sliding", name="moving")])
    assert message in str(refused.value)


def test_order_in_the_file_does_not_matter() -> None:
    written = [longer(), short(), longer(name="longest", **{"from": LONG})]
    found = [load_tables(order) for order in (written, written[::-1], written[1:] + written[:1])]
    assert all(list(tables) == list(found[0]) for tables in found)
    assert list(found[0]).index(NAME) < list(found[0]).index(LONG) < list(found[0]).index("gold.longest")


def test_circle_is_told() -> None:
    around = [longer(name=a, **{"from": f"gold.{b}"}) for a, b in ("ab", "bc", "ca")]
    circle = "gold.a from gold.b from gold.c from gold.a"
    told = f"plant.toml: calculations go in a circle: {circle}; one must read another table"
    with pytest.raises(ConfigurationError) as refused:
        load_tables([short(), *around], "plant.toml")
    assert str(refused.value) == told
