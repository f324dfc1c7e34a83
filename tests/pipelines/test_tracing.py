"""A row is followed back to the bytes it came from, whatever upkeep has done meanwhile."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.cli import main
from pipelines.config import MaintenanceConfig
from pipelines.maintenance import maintain
from pipelines.tracing import Traced, trace
from resources.errors import SecchiError
from tests.assets.counters import T0, Sample
from tests.assets.test_device_health import polls
from tests.pipelines.event_time import Silver
from tests.pipelines.plant import START, Plant, Reading
from tests.pipelines.test_counter_rates import append

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


@pytest.mark.parametrize("with_upkeep", [False, True], ids=["fresh", "compacted and expired"])
def test_score_is_followed_through_its_window(tmp_path: Path, with_upkeep: bool) -> None:
    """The other sensor of the device is looked at beside it, but its rows are not what the score is of."""
    plant, payloads = carried(tmp_path)
    plant.now = datetime.now(UTC) + timedelta(days=1)
    plant.drain()
    if with_upkeep:
        maintain(plant.context)
    score, window, readings, messages = chain(trace(plant.context, "gold.anomaly_scores", MINUTE))
    assert (score.table.identifier, score.rows["reason"].item()) == ("gold.anomaly_scores", "too_little_history")
    assert window.rows.select("sensor_id", "window_start").rows() == [(10001, START)]
    assert readings.rows.height == messages.expected == len(payloads)
    assert sorted(messages.rows["payload"]) == sorted(payloads)
    assert all(set(each.commits["table_batch_id"]) == set(each.rows["batch_id"]) for each in (score, window))


def test_pair_is_followed_to_the_two_messages_that_it_joins(tmp_path: Path) -> None:
    def state(ms: int, **values: float) -> bytes:
        return json.dumps({"Thing": "R1", "Timestamp": int(START.timestamp() * 1000) + ms, **values}).encode()

    plant = Plant(tmp_path)
    sent = [state(at, vaTorque_C1=at / 100) for at in (0, 300, 600)] + [state(at, actSpeed_C1=9.0) for at in (400, 900)]
    plant.land(sent, topic="machine/states")
    plant.drain()
    key = {"axis": "C1", "torque_at": (START + timedelta(milliseconds=300)).isoformat()}
    pairs, readings, messages = chain(trace(plant.context, "gold.machine_power", key))
    at = pairs.rows.select("torque_at", "speed_at").row(0)
    assert readings.rows.sort("observed_at").select("quantity", "observed_at").rows() == [
        ("vaTorque", at[0]),
        ("actSpeed", at[1]),
    ]
    assert sorted(messages.rows["payload"]) == sorted([sent[1], sent[3]])


def test_description_is_followed_to_what_describes(tmp_path: Path) -> None:
    silver = Silver(tmp_path)
    append(silver, [(0, "sysName", "a"), (0, "sysUpTime", 100), (0, "ifHCInOctets", 1)])
    silver.compute("silver.device_descriptions")
    _, samples = chain(trace(silver.context, "silver.device_descriptions", {"sys_name": "a"}))[:2]
    assert samples.rows["object_name"].to_list() == ["sysName"]


def test_interface_is_followed_to_its_own_counters(tmp_path: Path) -> None:
    silver = Silver(tmp_path)
    names = ("ifName", "ifHCInOctets", "ifHCOutOctets", "sysUpTime")
    told: list[Sample] = [
        (second, name, f"Gi{second % 2}" if name == "ifName" else 1000 * second)
        for second in range(0, 300, 15)
        for name in names
    ]
    append(silver, told)
    silver.compute("silver.counter_rates", "gold.interface_rates_1m", "gold.interface_scores")
    assert silver.rows("gold.interface_rates_1m")["interface_id"].n_unique() == 2
    interface = silver.rows("gold.interface_rates_1m")["interface_id"][0]
    at = silver.rows("gold.interface_rates_1m")["window_start"].sort()[2]
    key = {"interface_id": interface, "window_start": at.isoformat()}
    rates, steps, samples = chain(trace(silver.context, "gold.interface_rates_1m", key))[:3]
    assert (
        set(steps.rows["instance_id"]) == {interface}
        and steps.rows["observed_at"].is_between(at, at + timedelta(minutes=1), "left").all()
    )
    assert set(samples.rows["metric_oid"]) == set(steps.rows["metric_oid"])
    assert rates.rows["steps_normal"].item() == steps.rows.filter(step="normal").height
    final = silver.rows("gold.interface_scores")["window_start"][0]
    key = {"interface_id": interface, "window_start": final.isoformat(), "quantity": "in_bits_per_second"}
    score, minute = chain(trace(silver.context, "gold.interface_scores", key))[:2]
    assert minute.rows.select("interface_id", "window_start").rows() == [(interface, final)]
    assert score.commits.height == 1


def test_health_of_a_device_is_followed_to_polls_and_samples(tmp_path: Path) -> None:
    silver = Silver(tmp_path)
    table = silver.context.tables["silver.device_polls"]
    landed = {"stream": pl.lit("s"), "sequence": pl.lit(1, pl.Int64), "row": pl.lit(0, pl.Int32)}
    seen = polls((0, True), (60, True), (400, True)).with_columns(**landed, received_at="observed_at")
    silver.append_frame(table, seen.with_columns(device_id=pl.lit("sw1:161")).drop("batch_id"))
    append(silver, [(second, "sysUpTime", 100 * second) for second in (0, 60, 400)])
    silver.compute("gold.device_health_5m")
    health = trace(silver.context, "gold.device_health_5m", {"window_start": T0.isoformat()})
    assert [(each.table.name, each.rows.height) for each in health.origins] == [
        ("device_polls", 2),
        ("snmp_samples", 2),
    ]
    assert health.rows["polls"].item() == 2 and health.commits.height == 1


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
