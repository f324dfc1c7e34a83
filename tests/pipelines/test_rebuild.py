"""A calculation whose definition changed is computed again by request; a requested range too."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import gold_plan
from pipelines.micro_batch import is_behind
from tests.pipelines.event_time import Row, Silver
from tests.pipelines.test_windows import KINDS, NAME, computed, definition

ROWS: list[Row] = [(sensor, float(second), float(second % 7)) for second in range(0, 400, 5) for sensor in (0, 1)]


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
