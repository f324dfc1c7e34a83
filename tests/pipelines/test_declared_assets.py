"""What a user declares is an asset like one that ships: parents, lineage, checks, description."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.definitions import definitions
from pipelines.micro_batch_run import asset_key

CONFIG = """
[[reference]]
name = "owners"
file = "owners.csv"
key = ["device_id"]
columns = {device_id = "BIGINT", owner = "VARCHAR"}

[[calculation]]
name = "hours"
from = "gold.minutes"
by = ["site_id", "device_id"]
window = {kind = "tumbling", size = "1h"}
aggregate = {total = "sum(total)"}

[[calculation]]
name = "minutes"
from = "silver.sensor_readings"
where = "unit = 'BAR'"
by = ["site_id", "device_id"]
window = {kind = "tumbling", size = "1m"}
aggregate = {total = "sum(measurement)"}

[[calculation]]
name = "powers"
kind = "join"
by = ["thing", "axis"]
within = "1s"
match = "nearest"
left = {name = "torque", from = "silver.machine_readings", where = "quantity = 'vaTorque'"}
right = {name = "speed", from = "silver.machine_readings", where = "quantity = 'actSpeed'"}
select = {power = "torque.value * speed.value"}

[[calculation]]
name = "owned"
kind = "lookup"
from = "silver.sensor_readings"
lookup = [{name = "owner", from = "reference.owners"}]
select = {owner = "owner.owner"}

[[threshold]]
name = "much"
from = "gold.hours"
raise = "total > 100"
"""
PARENTS = {
    "gold.hours": {"gold/minutes"},
    "gold.minutes": {"silver/sensor_readings"},
    "gold.powers": {"silver/machine_readings"},
    "gold.owned": {"silver/sensor_readings", "reference/owners"},
    "gold.much": {"gold/hours"},
    "gold.threshold_events": {"gold/much"},
}
ORIGINS = {
    ("gold.hours", "total"): {("gold/minutes", "total")},
    ("gold.minutes", "total"): {("silver/sensor_readings", "measurement"), ("silver/sensor_readings", "unit")},
    ("gold.powers", "power"): {("silver/machine_readings", "value")},
    ("gold.owned", "owner"): {("reference/owners", "owner")},
    ("gold.much", "message"): {
        ("gold/hours", n) for n in ("site_id", "device_id", "window_start", "window_end", "total")
    },
}


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "owners.csv").write_text("device_id,owner\n1,Ann\n")
    (tmp_path / "secchi.toml").write_text(CONFIG)
    monkeypatch.setenv("SECCHI_CONFIG", str(tmp_path / "secchi.toml"))
    return definitions().get_repository_def().asset_graph


def test_declared_table_is_an_asset_with_all_that_follows(graph: Any) -> None:
    for identifier, parents in PARENTS.items():
        node = graph.get(asset_key(identifier))
        assert {key.to_user_string() for key in node.parent_keys} == parents
        assert node.description and node.group_name == "gold" and node.metadata["dagster/table_name"] == identifier
        assert all(c.description for c in node.metadata["dagster/column_schema"].columns)
        names = {key.name for key in graph.get_check_keys_for_assets({node.key})}
        assert names == {"contract", "expectations"}
    for (identifier, name), origins in ORIGINS.items():
        lineage: dg.TableColumnLineage = graph.get(asset_key(identifier)).metadata["dagster/column_lineage"]
        found = {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage.deps_by_column[name]}
        assert found == origins, identifier
