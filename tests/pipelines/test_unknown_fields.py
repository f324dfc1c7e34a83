"""``[unknown_fields]`` on the way from landing to silver: new fields and changed types, in each mode."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.declarations import UnknownFields
from assets.silver.sensor_readings import sensor_readings
from pipelines.cli import main
from pipelines.config import parse_config
from pipelines.connection import secchi_connection
from pipelines.context import open_context
from pipelines.maintenance import maintain
from pipelines.waiting import request_rebuild, request_replay
from resources.errors import ConfigurationError
from tests.pipelines.plant import START, Plant, Reading

SILVER, MACHINES = "silver.sensor_readings", "silver.machine_readings"


def plant(folder: Path, mode: UnknownFields | None, table: str = SILVER) -> Plant:
    return Plant(folder, {"unknown_fields": {table: mode}} if mode else {}, now=START + timedelta(hours=1))


def reading(second: int, metadata: dict[str, Any] | None = None, **others: Any) -> bytes:
    document = json.loads(Reading(1, second, 1.5).payload)
    return json.dumps({**document, **others, "metadata": {**document["metadata"], **(metadata or {})}}).encode()


SENT = [
    reading(0),
    reading(1, humidity=40, metadata={"fwVersion": "1.2"}),
    reading(2, {"deviceType": 7}),
    reading(3, humidity="wet"),
]


def carried(folder: Path, mode: UnknownFields | None) -> Plant:
    found = plant(folder, mode)
    found.land(SENT)
    found.drain()
    return found


def silver(plant: Plant, *columns: str) -> list[tuple[Any, ...]]:
    return plant.table(SILVER).sort("observed_at").select(*columns).rows()


def quarantined(plant: Plant) -> list[tuple[str, str]]:
    waiting = plant.table("quarantine.records").filter(pl.col("replayed_by").is_null()).sort("row")
    return [(reason, message.split(";")[0]) for reason, message in waiting.select("reason", "message").rows()]


WRONG_TYPE = ("wrong_type", "metadata.deviceType must be text, got 7")
EXPECTED: dict[str | None, tuple[list[str | None], list[tuple[str, str]]]] = {
    None: ([None, '{"humidity":40,"metadata":{"fwVersion":"1.2"}}', '{"humidity":"wet"}'], [WRONG_TYPE]),
    "evolve": ([None, None, None, None], []),
    "discard_value": ([None, None, None, None], []),
    "discard_row": (
        [None],
        [
            ("unknown_field", f"humidity = 40 is no field of {SILVER}"),
            WRONG_TYPE,
            ("unknown_field", f'humidity = "wet" is no field of {SILVER}'),
        ],
    ),
}
EXPECTED["freeze"] = EXPECTED[None]


@pytest.mark.parametrize("mode", EXPECTED)
def test_each_mode_from_landing_to_silver(tmp_path: Path, mode: UnknownFields | None) -> None:
    found = carried(tmp_path, mode)
    extra, refused = EXPECTED[mode]
    assert [row[0] for row in silver(found, "extra")] == extra
    assert quarantined(found) == refused
    assert sorted(found.table("bronze.mqtt_messages")["payload"]) == sorted(SENT), "bronze loses nothing"
    stored = set(found.context.lakehouse.table(sensor_readings.stored, refresh=True).schema().column_names)
    assert bool(stored - set(sensor_readings.schema)) == (mode == "evolve")


@pytest.mark.parametrize("mode", EXPECTED)
def test_fields_are_noted_once_with_an_example(tmp_path: Path, mode: UnknownFields | None) -> None:
    found = carried(tmp_path, mode)
    found.land([reading(9, humidity=41)])
    found.drain()
    noted = found.table("ops.fields").filter(
        pl.col("path") != "metadata.deviceType"
    )  # no reason to refuse the row in every mode
    noted = noted.sort("path", "kind")
    assert noted.select("table_name", "path", "kind", "example", "mode").rows() == [
        (SILVER, "humidity", "number", "40", mode or "freeze"),
        (SILVER, "humidity", "text", '"wet"', mode or "freeze"),
        (SILVER, "metadata.fwVersion", "text", '"1.2"', mode or "freeze"),
    ]


EVOLVED = ("humidity", "humidity_text", "metadata_fw_version", "metadata_device_type")
VALUES = [(None, None, None, None), (40.0, None, "1.2", None), (None, None, None, 7.0), (None, "wet", None, None)]


def test_evolve_adds_columns_that_stay_through_restart_compaction_and_another_mode(tmp_path: Path) -> None:
    found = carried(tmp_path, "evolve")
    assert silver(found, *EVOLVED) == VALUES
    found.land([reading(9, humidity=41)])  # in a second file
    found.drain()
    found = Plant(tmp_path, {"maintenance": {"compact_files": 2}}, now=found.now)
    assert not [report.error for report in maintain(found.context) if report.error]
    assert silver(found, *EVOLVED) == [*VALUES, (41.0, None, None, None)]
    found.land([reading(10, humidity=42, other=1)])  # the mode is freeze again
    found.drain()
    assert silver(found, "humidity", "extra")[-1] == (42.0, '{"other":1}')
    rows = found.table("gold.sensor_windows_1m")
    assert rows["readings"].sum() == 6


def test_evolved_columns_can_be_queried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carried(tmp_path / "data", "evolve")
    config = tmp_path / "secchi.toml"
    config.write_text("")
    query = f"select max(humidity), max(metadata_fw_version) from {SILVER}"
    assert secchi_connection(config).sql(query).fetchall() == [(40.0, "1.2")]
    assert main(["--config", str(config), "sql", query, "--format", "csv"]) == 0
    assert "40.0,1.2" in capsys.readouterr().out


def test_replay_after_a_change_of_mode_brings_the_rows_in(tmp_path: Path) -> None:
    carried(tmp_path, "discard_row")
    found = plant(tmp_path, "evolve")
    request_replay(found.context, SILVER, None)
    found.drain()
    assert silver(found, *EVOLVED) == VALUES
    assert quarantined(found) == []
    request_replay(found.context, SILVER, None)
    found.drain()
    assert len(silver(found, "extra")) == len(SENT), "none twice"


def test_rebuild_after_a_change_of_mode_takes_fields_from_bronze(tmp_path: Path) -> None:
    carried(tmp_path, "discard_value")
    found = plant(tmp_path, "evolve")
    request_rebuild(found.context, SILVER)
    found.drain()
    assert silver(found, *EVOLVED) == VALUES


def test_machine_states_follow_their_mode(tmp_path: Path) -> None:
    state = {"Thing": "R1", "Timestamp": 1772366400000, "vaTorque_C1": 2.5, "mode": "AUTO", "id": 7}
    found = plant(tmp_path, "evolve", MACHINES)
    found.land([json.dumps(state).encode()], topic="machine/states")
    found.drain()
    rows = found.table(MACHINES).select("quantity", "mode", "id", "message_id", "extra").rows()
    assert rows == [("vaTorque", "AUTO", 7.0, None, None)]


def test_table_without_unknown_fields_is_refused(tmp_path: Path) -> None:
    config = parse_config({"unknown_fields": {"silver.snmp_samples": "evolve"}, "lakehouse": {"path": str(tmp_path)}})
    with pytest.raises(ConfigurationError, match=r"unknown_fields: must name one of .*sensor_readings.*snmp_samples"):
        open_context(config)
    with pytest.raises(ConfigurationError, match="unknown_fields"):
        parse_config({"unknown_fields": {SILVER: "drop"}})


def test_status_and_check_tell_of_unknown_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carried(tmp_path / "data", "discard_value")
    config = tmp_path / "secchi.toml"
    config.write_text(f'[unknown_fields]\n"{SILVER}" = "discard_value"\n')
    assert main(["--config", str(config), "status"]) == 0
    status = capsys.readouterr().out
    assert "metadata.fwVersion" in status and '"1.2"' in status and "discard_value" in status
    assert main(["--config", str(config), "check"]) == 0
    assert f"Unknown fields of {SILVER}: discard_value." in capsys.readouterr().out
