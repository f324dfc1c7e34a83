"""A row is followed back to the bytes it came from, whatever upkeep has done meanwhile."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.config import MaintenanceConfig
from pipelines.maintenance import maintain
from pipelines.tracing import Traced, trace
from resources.errors import SecchiError
from tests.pipelines.plant import START, Plant, Reading

WINDOWS, SILVER, BRONZE = "gold.sensor_windows_1m", "silver.sensor_readings", "bronze.mqtt_messages"
UPKEEP = MaintenanceConfig(keep_snapshots=1, keep_snapshots_for=timedelta(0), compact_files=2)
MINUTE = {"sensor_id": "10001", "window_start": START.isoformat()}


def carried(folder: Path, **upkeep: Any) -> tuple[Plant, list[bytes]]:
    """A plant with three batches of two sensors over two minutes; the payloads of sensor 1 in the first minute."""
    plant = Plant(folder, options={"maintenance": UPKEEP.model_copy(update=upkeep)})
    wanted = []
    for batch in range(3):
        readings = [Reading(sensor, 7 * second + batch, float(second)) for sensor in (1, 2) for second in range(16)]
        wanted += [r.payload for r in readings if r.sensor == 1 and r.second < 60]
        plant.land(r.payload for r in readings)
        plant.drain()
    return plant, wanted


def chain(traced: Traced) -> list[Traced]:
    return [traced, *(chain(traced.origins[0]) if traced.origins else [])]


@pytest.mark.parametrize("with_upkeep", [False, True], ids=["fresh", "compacted and expired"])
def test_window_is_followed_to_its_payloads(tmp_path: Path, with_upkeep: bool) -> None:
    plant, payloads = carried(tmp_path)
    if with_upkeep:
        plant.now = datetime.now(UTC) + timedelta(days=1)  # snapshots are stamped by the wall clock
        plant.drain()
        maintain(plant.context)
        snapshots = plant.context.lakehouse.table(plant.context.tables[SILVER].stored, refresh=True).snapshots()
        assert len(snapshots) == 1
    window, readings, messages = chain(trace(plant.context, WINDOWS, MINUTE))
    assert [t.table.identifier for t in (window, readings, messages)] == [WINDOWS, SILVER, BRONZE]
    assert window.rows["readings"].item() == readings.rows.height == len(payloads)
    assert sorted(messages.rows["payload"]) == sorted(payloads)
    assert messages.expected == messages.rows.height
    for traced in (window, readings, messages):
        assert set(traced.commits["table_batch_id"]) == set(traced.rows["batch_id"])
        assert traced.commits["run_id"].null_count() == 0
    assert readings.commits.height == 3


def test_rows_past_their_retention_are_counted(tmp_path: Path) -> None:
    plant, payloads = carried(tmp_path, retention={BRONZE: timedelta(days=1)})
    plant.now += timedelta(days=3)
    plant.drain()
    maintain(plant.context)
    _, readings, messages = chain(trace(plant.context, WINDOWS, MINUTE))
    assert readings.rows.height == messages.expected == len(payloads)
    assert messages.rows.is_empty()


@pytest.mark.parametrize(
    ("table", "key", "said"),
    [
        ("gold.windows", {}, "is no table; tables are"),
        (WINDOWS, {"sensor": "1"}, "'sensor' is no column; the key is site_id"),
        (WINDOWS, {"sensor_id": "one"}, "sensor_id must be Int64, got 'one'"),
        (WINDOWS, {"window_start": "yesterday"}, "got 'yesterday'"),
        (WINDOWS, {"sensor_id": "3"}, "no row has sensor_id=3"),
        (WINDOWS, {"sensor_id": "10001"}, "2 rows have sensor_id=10001; name one by its key, as in site_id=101"),
    ],
)
def test_what_means_no_row_or_several_is_refused(tmp_path: Path, table: str, key: dict[str, str], said: str) -> None:
    plant, _ = carried(tmp_path)
    with pytest.raises(SecchiError) as refused:
        trace(plant.context, table, key)
    assert said in str(refused.value)


def test_command_prints_each_table_and_json_has_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, payloads = carried(tmp_path / "data")
    (tmp_path / "secchi.toml").write_text('[lakehouse]\npath = "data"\n')
    command = ["--config", str(tmp_path / "secchi.toml"), "trace", WINDOWS, *(f"{n}={v}" for n, v in MINUTE.items())]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"{SILVER}: {len(payloads)} rows" in shown and '{"ts":' in shown and "more; --limit shows them" in shown
    assert main([*command, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    landed = told["from"][0]["from"][0]
    assert (landed["table"], landed["missing"], len(landed["rows"])) == (BRONZE, 0, len(payloads))
    assert main([*command[:-2], "sensor_id"]) == 2
    assert "must be NAME=VALUE, got 'sensor_id'" in capsys.readouterr().err
