"""A calculation whose definition changed is computed again by request; a requested range too."""

import importlib
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import gold_plan
from pipelines.micro_batch import is_behind
from resources.errors import SchemaMismatchError
from tests.pipelines.event_time import Row, Silver
from tests.pipelines.plant import compared
from tests.pipelines.test_windows import BY, KINDS, NAME, computed, definition

ROWS: list[Row] = [(sensor, float(second), float(second % 7)) for second in range(0, 400, 5) for sensor in (0, 1)]
SUMMED = definition("tumbling")["aggregate"]


def changed(silver: Silver, **changes: Any) -> Silver:
    return Silver(silver.folder, [definition("tumbling", **changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"where": "measurement > 3"},
        {"where": "sensor_id = 0"},
        {"window": {"kind": "tumbling", "size": "30s"}},
        {"window": KINDS["sliding"]},
        {"window": KINDS["session"]},
        {"aggregate": {"readings": "count()", "total": "sum(2 * measurement)", "last": "first(measurement)"}},
    ],
    ids=str,
)
def test_changed_definition_leaves_what_it_would_have_made(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = Silver(tmp_path / "changed", [definition("tumbling")])
    first.append(ROWS)
    first.compute(NAME)
    second = changed(first, **changes)
    assert is_behind(second.context) == f"the definition of {NAME} has changed"
    second.compute(NAME)
    fresh = Silver(tmp_path / "fresh", [definition("tumbling", **changes)])
    fresh.append(ROWS)
    fresh.compute(NAME)
    assert computed(second) == computed(fresh)
    asked = second.stored("ops.requests")
    assert asked.select("table_name", "kind").rows() == [(NAME, "rebuild")]


PAIRS: dict[str, Any] = {
    "name": "pairs",
    "kind": "join",
    "by": BY,
    "within": "10s",
    "match": "latest",
    "left": {"name": "a", "from": "silver.sensor_readings", "where": "measurement > 2"},
    "right": {"name": "b", "from": "silver.sensor_readings", "where": "measurement < 5"},
    "select": {"apart": "a.measurement - b.measurement"},
}
LONGER = {**definition("tumbling"), "name": "longer", "from": NAME, "aggregate": {"n": "sum(readings)"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([PAIRS], [{**PAIRS, "match": "all", "within": "20s"}]),
        ([{**PAIRS, "match": "all", "within": "20s"}], [PAIRS]),
        ([PAIRS], [{**PAIRS, "select": {"apart": "b.measurement - a.measurement", "sum": "a.measurement"}}]),
        ([definition("tumbling"), LONGER], [definition("tumbling", where="measurement > 3"), LONGER]),
        (
            [definition("tumbling"), LONGER],
            [definition("tumbling"), {**LONGER, "window": {"kind": "sliding", "size": "80s", "slide": "20s"}}],
        ),
        ([definition("tumbling")], [definition("tumbling", by=[*BY, "unit"])]),
        ([definition("tumbling")], [definition("tumbling", aggregate={**SUMMED, "most": "max(measurement)"})]),
    ],
    ids=[
        "more pairs",
        "fewer pairs",
        "another column",
        "parts of a window",
        "long windows",
        "by",
        "one aggregate more",
    ],
)
def test_changed_table_is_that_of_a_fresh_start(
    tmp_path: Path, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    names = [f"gold.{each['name']}" for each in after]
    first, fresh = Silver(tmp_path / "changed", before), Silver(tmp_path / "fresh", after)
    first.append(ROWS)
    first.compute(*names)
    second = Silver(first.folder, after)
    second.compute(*names)
    fresh.append(ROWS)
    fresh.compute(*names)
    for name in names:
        key = second.context.tables[name].key
        assert compared(second.rows(name), key).equals(compared(fresh.rows(name), key)) and fresh.rows(name).height


@pytest.mark.parametrize(
    "aggregate", [{"readings": "count()"}, {**SUMMED, "last": "max(unit)"}], ids=["gone", "another type"]
)
def test_column_that_is_gone_is_refused(tmp_path: Path, aggregate: dict[str, str]) -> None:
    first = Silver(tmp_path, [definition("tumbling")])
    first.append(ROWS)
    first.compute(NAME)
    with pytest.raises(SchemaMismatchError, match=r"^gold\.measured: stored column '(total|last)' is double, "):
        changed(first, aggregate=aggregate).compute(NAME)


def test_changed_source_of_a_function_computes_its_rows_again(tmp_path: Path) -> None:
    source = tmp_path / "rebuilt_rule.py"
    told = {"aggregate": None, "function": "rebuilt_rule:rule", "columns": {"found": "DOUBLE"}}
    wanted = {key: value for key, value in definition("tumbling", **told).items() if value is not None}

    def opened(expression: str) -> Silver:
        source.write_text(
            "import polars as pl\n\n\ndef rule(rows):\n"
            f"    return rows.group_by({BY!r} + ['window_start']).agg(found=pl.col('measurement').{expression}())\n"
        )
        sys.modules.pop("rebuilt_rule", None)  # as in a new process
        importlib.invalidate_caches()
        return Silver(tmp_path / "lake", [wanted], source=str(tmp_path / "secchi.toml"))

    silver = opened("max")
    silver.append([(0, 0.0, 3.0), (0, 1.0, 5.0)])
    silver.compute(NAME)
    before = silver.rows(NAME)
    again = opened("mean")
    again.compute(NAME)
    after = again.rows(NAME)
    assert (before["found"].to_list(), after["found"].to_list()) == ([5.0], [4.0])
    assert before["function_version"].to_list() != after["function_version"].to_list()


def test_unchanged_definition_asks_for_nothing(tmp_path: Path) -> None:
    first = Silver(tmp_path, [definition("tumbling")])
    first.append(ROWS)
    first.compute(NAME)
    second = changed(first, description="Another text.")
    second.compute(NAME)
    assert second.stored("ops.requests").is_empty()


def test_rebuild_takes_a_bounded_share_beside_live_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass rebuilds about a batch of input; rows that come meanwhile are computed, too."""
    monkeypatch.setattr(gold_plan, "BATCH_ROWS", 50)
    first = Silver(tmp_path / "changed", [definition("tumbling")])
    for i in range(0, len(ROWS), 40):
        first.append(ROWS[i : i + 40])
        first.compute(NAME)
    second = changed(first, where="measurement > 3")
    plan = gold_plan.plan_gold(second.context, second.context.tables[NAME])
    assert plan is not None and plan.has_more and gold_plan.REBUILD in plan.to
    second.append([(0, 1000.0, 6.0)])
    second.compute(NAME)
    assert second.rows(NAME)["readings"].sum() == sum(value > 3 for _, _, value in ROWS) + 1
    commits = second.context.lakehouse.head(second.context.tables[NAME].stored).batch_id
    assert commits > first.context.lakehouse.head(first.context.tables[NAME].stored).batch_id - 1
    marker = second.context.lakehouse.head(second.context.tables[NAME].stored).markers[NAME]
    assert gold_plan.REBUILD not in marker


def test_vanished_windows_are_fed_to_readers(tmp_path: Path) -> None:
    first = Silver(tmp_path, [definition("tumbling")])
    first.append(ROWS)
    first.compute(NAME)
    head = first.context.lakehouse.head(first.context.tables[NAME].stored).batch_id
    second = changed(first, where="sensor_id = 0")
    second.compute(NAME)
    fed = second.stored(NAME).filter(pl.col("batch_id") > head)
    assert fed["is_retracted"].all() and fed["sensor_id"].unique().to_list() == [1]
