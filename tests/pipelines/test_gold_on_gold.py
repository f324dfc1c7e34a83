"""Tables that read computed tables are traced, previewed and audited like those that read silver."""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.audits import computed_again
from pipelines.preview import preview
from pipelines.tracing import Traced, trace
from tests.pipelines.event_time import START, Silver
from tests.pipelines.test_windows import BY, NAME, definition

READINGS = "silver.sensor_readings"


def minutes(name: str, source: str, by: list[str], **changes: Any) -> dict[str, Any]:
    window = {"kind": "tumbling", "size": "60s"}
    return {"name": name, "from": source, "by": by, "window": window, "aggregate": {"n": "count()"}, **changes}


CALCULATIONS: list[dict[str, Any]] = [
    definition("session"),
    minutes("runs", NAME, BY),
    minutes("site", READINGS, ["site_id"]),
    minutes("everything", READINGS, ["unit"]),
    {
        "name": "pairs",
        "kind": "join",
        "by": BY,
        "within": "5s",
        "match": "all",
        "left": {"name": "session", "from": NAME},
        "right": {"name": "reading", "from": READINGS},
        "select": {"held": "session.readings"},
    },
    minutes("pairs_1m", "gold.pairs", BY),
]
THRESHOLD = {"name": "busy", "from": "gold.site", "raise": "n > 2"}
ORIGINS: dict[str, Any] = {
    NAME: {READINGS: 5},
    "gold.runs": {NAME: 1},
    "gold.site": {READINGS: 5},
    "gold.everything": {READINGS: 5},
    "gold.pairs": {NAME: 1, READINGS: 1},
    "gold.pairs_1m": {"gold.pairs": 3},
    "gold.busy": {"gold.site": 1},
}
"""Of the first row of each table, how many rows of its inputs it stands for."""


@pytest.fixture(scope="module")
def silver(tmp_path_factory: pytest.TempPathFactory) -> Silver:
    """A late row has merged two sessions, so that one vanished."""
    silver = Silver(tmp_path_factory.mktemp("lake"), CALCULATIONS, {"threshold": [THRESHOLD]})
    for rows in ([(0, t, 1.0) for t in (0, 1, 2, 18, 60, 100, 400)], [(0, 10, 1.0), (1, 70, 1.0)]):
        silver.append(rows)
        silver.compute(*ORIGINS)
    assert silver.stored("gold.pairs")["is_retracted"].sum() == 1
    return silver


def traced(silver: Silver, name: str) -> Traced:
    row = silver.rows(name).row(0, named=True)
    key = {column: row[column] for column in silver.context.tables[name].key}
    return trace(silver.context, name, {n: v.isoformat() if n.endswith("_at") else str(v) for n, v in key.items()})


@pytest.mark.parametrize("name", ORIGINS)
def test_row_is_traced_to_what_it_stands_for(silver: Silver, name: str) -> None:
    assert {o.table.identifier: o.rows.height for o in traced(silver, name).origins} == ORIGINS[name]


@pytest.mark.parametrize("name", ORIGINS)
def test_preview_is_what_is_stored(silver: Silver, name: str) -> None:
    seen, rows = preview(silver.context, name, timedelta(days=1)), silver.rows(name)
    assert seen.sort(silver.context.tables[name].key).equals(rows.select(seen.columns)) and rows.height


@pytest.mark.parametrize("name", sorted(ORIGINS.keys() - {"gold.busy"}))
def test_audit_finds_every_row(silver: Silver, name: str) -> None:
    silver.now = START + timedelta(minutes=10)
    rows = computed_again(silver.context, silver.context.tables[name]).rows
    assert rows.height and rows["value"].equals(rows["low"])
