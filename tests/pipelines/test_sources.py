"""Machine states and declared topics on their way from landing to silver."""

import os
from pathlib import Path

import polars as pl
import pytest

from pipelines.settings.decode import DecodeConfig
from pipelines.settings.labels import LabelFile
from pipelines.simulate.catalogue import load_catalogue
from pipelines.simulate.factory import write_labels
from pipelines.simulate.readings import FAULTS
from pipelines.simulate.readings import Plant as Factory
from tests.pipelines.plant import Plant

MACHINE, VALUES = "silver.machine_readings", "silver.topic_values"


def test_recorded_states_arrive_whole_and_once(tmp_path: Path) -> None:
    folder = os.environ.get("SECCHI_TEST_DATA")
    if not folder:
        pytest.skip("SECCHI_TEST_DATA names no folder with the recordings")
    payloads = (Path(folder) / "machine" / "events_sample.jsonl").read_bytes().splitlines()
    plant = Plant(tmp_path)
    plant.land(payloads[:3000], "machine/states")
    plant.drain()
    plant.land([*payloads[2000:], *payloads[:100]], "machine/states")  # some are delivered twice
    plant.drain()
    rows = plant.table(MACHINE)
    assert rows.height == 19_825 == rows.select("thing", "quantity", "axis", "observed_at").n_unique()
    assert plant.table("quarantine.records").is_empty()
    assert rows["message_id"].n_unique() == 5000
    watermarks = plant.table("ops.watermarks").filter(pl.col("source") == MACHINE)
    assert set(watermarks["sender"]) == {"R0815", "H31415", "R27182"}


def test_another_value_at_the_same_time_is_a_conflict_and_the_first_stays(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    state = b'{"Thing":"A","Timestamp":1554096460415,"v_C1":%d,"load":%d}'
    plant.land(
        [state % (1, 7), state % (2, 7), b'{"Thing":"A","Timestamp":1554096460416,"v_C1":NaN,"load":8}'],
        "machine/states",
    )
    plant.drain()
    rows = plant.table(MACHINE).sort("observed_at", "quantity")
    assert rows.select("quantity", "axis", "value").rows() == [("load", None, 7), ("v", "C1", 1), ("load", None, 8)]
    assert sorted(plant.table("quarantine.records")["reason"]) == ["key_conflict", "not_finite"]


def test_declared_topics_become_values_and_their_formats_a_table(tmp_path: Path) -> None:
    entry = DecodeConfig.model_validate({"topics": ["tank/+/level"], "format": "number"})
    plant = Plant(tmp_path, {"decode": [entry]})
    plant.land([b"21.5"], "tank/7/level")
    plant.land([b"x"], "tank/8/level")
    plant.land([b"1"], "other/7")
    plant.drain()
    (row,) = plant.table(VALUES).to_dicts()
    assert (row["topic"], row["field"], row["value"], row["observed_at"]) == ("tank/7/level", "value", 21.5, plant.now)
    assert plant.table("quarantine.records")["stage"].to_list() == [VALUES]
    assert plant.table("reference.topic_formats")["topic_filter"].to_list() == ["tank/+/level"]


def test_formats_follow_the_configuration(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    plant.land([b"1"], "tank/7/level")
    plant.drain()
    assert plant.table("reference.topic_formats").is_empty() and plant.table(VALUES).is_empty()
    entry = DecodeConfig.model_validate({"topics": ["tank/#"], "format": "number"})
    again = Plant(tmp_path, {"decode": [entry]})
    again.land([b"2"], "tank/7/level")
    again.drain()
    assert again.table(VALUES)["value"].to_list() == [2.0]
    assert again.table("reference.topic_formats")["topic_filter"].to_list() == ["tank/#"]
    last = Plant(tmp_path)
    last.drain()
    assert last.table("reference.topic_formats").is_empty()


def test_labels_of_the_simulator_are_a_table_that_follows_its_file(tmp_path: Path) -> None:
    file = tmp_path / "faults.csv"
    plant = Plant(tmp_path / "lake", {"fault_labels": [LabelFile(file=file)]})
    (failed,) = [result for result in plant.batches.drain() if result.error]
    assert failed.table == "reference.fault_labels" and f"{file}: No such file" in str(failed.error)
    sites = load_catalogue()
    for days in (1, 2):
        now = 86_400_000 * days
        write_labels(file, Factory(sites, 0).labels(0, now))
        again = Plant(tmp_path / "lake", {"fault_labels": [LabelFile(file=file)]})
        again.drain()
        rows = again.table("reference.fault_labels")
        assert rows.height >= days * sum(len(site.devices) for site in sites)
        assert set(rows["fault"]) <= set(FAULTS) and (rows["ended_at"] > rows["started_at"]).all()
