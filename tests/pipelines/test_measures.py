"""What other tables say about a table, read from a real lakehouse, and rows worked out again."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from assets.ops.batches import batches
from assets.table import column, declare
from data_quality.measures import Measure
from pipelines.context import utc_now
from pipelines.measures import measures_of
from pipelines.recent_rows import recent_rows
from resources.commit import Commit
from resources.lakehouse import FILE
from tests.pipelines.event_time import Silver
from tests.pipelines.plant import START, Plant, Reading
from tests.pipelines.test_counter_rates import INTERFACES, RATES, append

SILVER, GOLD, SCORES = "silver.sensor_readings", "gold.sensor_windows_1m", "gold.anomaly_scores"
BRONZE = "bronze.mqtt_messages"


def landed(folder: Path, now: datetime = START + timedelta(minutes=5)) -> Plant:
    """Three minutes of three sensors, one of them sent twice, and three payloads that are no reading."""
    plant = Plant(folder, now=now)
    payloads = [Reading(sensor, second, 1.5).payload for second in range(0, 180, 10) for sensor in (1, 2, 3)]
    plant.land([*payloads, payloads[0], b"", b"{", b"[]"])
    plant.drain()
    plant.context.clock = utc_now
    return plant


def measure(plant: Plant, identifier: str, start: str) -> Measure:
    table = plant.context.tables[identifier]
    found = measures_of(plant.context, table, recent_rows(plant.context, table))
    (one,) = [each for each in found if each.description.startswith(start)]
    return one


def bad(measure: Measure) -> list[str]:
    rows = measure.rows.filter((pl.col("value") < pl.col("low")) | (pl.col("value") > pl.col("high")))
    return rows["subject"].to_list()


def change(plant: Plant, identifier: str, how: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Changes rows behind the pipeline's back: no marker moves."""
    table, lakehouse = plant.context.tables[identifier], plant.context.lakehouse
    lakehouse.table(table.stored, refresh=True)
    files = lakehouse.files(table.stored)
    rows = lakehouse.read_files(table.stored, files, columns=[*table.schema, FILE]).drop(FILE)
    assert lakehouse.rewrite(table.stored, files, lakehouse.write_sorted(table.stored, how(rows)))


def without(sensor: int) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda rows: rows.filter(pl.col("sensor_id") != 10000 + sensor)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return landed(tmp_path_factory.mktemp("plant"))


@pytest.mark.parametrize("identifier", [SILVER, GOLD, SCORES])
def test_what_was_carried_reconciles(plant: Plant, identifier: str) -> None:
    rows = measure(plant, identifier, "What ").rows
    assert rows.height and (rows["value"] == rows["low"]).all() and (rows["value"] == rows["high"]).all()


def test_counts_are_told_by_source_and_hour(plant: Plant) -> None:
    rows = measure(plant, SILVER, "What ").rows
    at = f"{plant.now:%Y-%m-%d %H}:00"
    assert dict(rows.select("subject", "value").rows()) == {
        f"101/1000 {at}": 19.0,
        f"101/1001 {at}": 36.0,
        f"rejects {at}": 3.0,
    }


def test_reading_that_silver_lost_is_found(tmp_path: Path) -> None:
    plant = landed(tmp_path)
    change(plant, SILVER, without(1))
    assert bad(measure(plant, SILVER, "What ")) == [f"101/1000 {plant.now:%Y-%m-%d %H}:00"]
    kept = {"maintenance": {"retention": {SILVER: "1h"}}}
    assert not bad(measure(Plant(tmp_path, kept, now=utc_now()), SILVER, "What ")), "retention may drop it"


def test_rejected_payload_that_quarantine_lost_is_found(tmp_path: Path) -> None:
    plant = landed(tmp_path)
    change(plant, "quarantine.records", lambda rows: rows.filter(pl.col("reason") != "not_an_object"))
    assert bad(measure(plant, SILVER, "What ")) == [f"rejects {plant.now:%Y-%m-%d %H}:00"]


@pytest.mark.parametrize(
    ("identifier", "how"),
    [
        (GOLD, without(2)),
        (GOLD, lambda rows: rows.with_columns(readings=pl.col("readings") + 1)),
        (GOLD, lambda rows: pl.concat([rows, rows.with_columns(device_id=pl.lit(7, pl.Int64))])),
        (SCORES, without(2)),
        (SCORES, lambda rows: rows.with_columns(window_revision=pl.col("window_revision") + 1)),
    ],
)
def test_window_that_is_not_what_silver_gives_is_found(
    tmp_path: Path, identifier: str, how: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    plant = landed(tmp_path)
    change(plant, identifier, how)
    assert bad(measure(plant, identifier, "What "))


def test_computed_silver_reconciles_with_its_samples(tmp_path: Path) -> None:
    silver = Silver(tmp_path)
    append(silver, [(0, "sysUpTime", 100), (0, "ifHCInOctets", 5), (30, "ifHCInOctets", 900), (70, "ifHCInOctets", 7)])
    silver.compute(RATES, INTERFACES)
    for identifier in (RATES, INTERFACES):
        table = silver.context.tables[identifier]
        (found,) = [m for m in measures_of(silver.context, table, silver.rows(identifier)) if m.severity == "critical"]
        assert found.rows["subject"].to_list() == ["sw1:161 2026-01-05 12:00"] and not bad(found)


def test_what_gold_has_not_taken_yet_is_not_held_against_it(tmp_path: Path) -> None:
    plant = landed(tmp_path)
    plant.land([Reading(1, 55, 9.0).payload])
    plant.batches.only = {BRONZE, SILVER}
    plant.drain()
    found = measure(plant, GOLD, "What ")
    assert not bad(found) and found.rows["subject"].str.starts_with("101/1001").all()


def test_share_in_quarantine_is_of_what_came_lately(tmp_path: Path) -> None:
    plant = landed(tmp_path, now=utc_now())
    assert measure(plant, SILVER, "At most").rows["subject"].to_list() == ["3 of 57"]
    assert measure(plant, "silver.machine_readings", "At most").rows.is_empty()


def test_volume_is_that_of_the_same_hour_of_earlier_days(tmp_path: Path) -> None:
    plant = landed(tmp_path)
    hour = plant.context.clock().replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    for day, count in enumerate((1, 100, 100, 100)):
        _record(plant, hour - timedelta(days=day) + timedelta(minutes=5), count, 1000 + day)
        _record(plant, hour - timedelta(days=day) + timedelta(hours=1), 5000, 2000 + day)
    rows = measure(plant, SILVER, "The last full hour").rows
    assert rows.rows() == [(f"{hour:%Y-%m-%d %H}:00", 1.0, 50.0, 200.0)]


def _record(plant: Plant, at: datetime, rows: int, number: int) -> None:
    told = {"table_name": SILVER, "table_batch_id": number, "producer": SILVER, "committed_at": at, "rows": rows}
    frame = pl.DataFrame(
        [{**told, "from_marker": "{}", "to_marker": "{}", "snapshot_id": 1, "run_id": None, "segments": None}],
        {n: t for n, t in batches.schema.items() if n != "batch_id"},
    )
    lakehouse, stored = plant.context.lakehouse, batches.stored
    batch_id = lakehouse.head(stored).batch_id + 1
    files = lakehouse.write(stored, frame, batch_id)
    lakehouse.commit_once(Commit(stored, f"test {number}", {}, {"at": number}, batch_id, files))


def test_sender_and_series_that_fall_silent_are_told(tmp_path: Path) -> None:
    plant = Plant(tmp_path, now=utc_now())
    plant.land([Reading(1, 0, 1.5).payload, Reading(2, 0, 1.5).payload])
    plant.drain()
    later = utc_now() + timedelta(minutes=90)
    plant.now = later
    plant.land([Reading(1, 60, 1.5).payload])
    plant.drain()
    assert bad(measure(plant, SILVER, "Every sender")) == ["101/1001"]
    assert bad(measure(plant, SILVER, "Every sender")) != bad(measure(plant, GOLD, "Every series"))


def test_values_must_be_in_a_reference_table_that_is_there(plant: Plant) -> None:
    sites = declare(
        layer="reference",
        name="sites",
        description="Sites.",
        columns=(column("site_id", pl.Int64, "Site", required=True),),
        key=("site_id",),
    )
    table, context = plant.context.tables[SILVER], plant.context
    rows = recent_rows(context, table)
    text = "Every site_id is in reference.sites"
    assert not any(m.description.startswith(text) for m in measures_of(context, table, rows))
    known = replace(context, tables={**context.tables, sites.identifier: sites})
    files = context.lakehouse.write(sites.stored, pl.DataFrame({"site_id": [102]}), 1)
    context.lakehouse.commit_once(Commit(sites.stored, "test", {}, {"n": 1}, 1, files))
    (told,) = [m for m in measures_of(known, table, rows) if m.description.startswith(text)]
    assert told.rows.select("subject", "value").rows() == [("site_id=101", 54.0)]


def test_measures_become_results_with_examples(tmp_path: Path) -> None:
    from pipelines.quality import check_table

    plant = landed(tmp_path)
    change(plant, SILVER, without(1))
    outcome = check_table(plant.context, plant.context.tables[SILVER])
    assert outcome is not None and not outcome[1].success
    told = plant.table("quality.results").filter(~pl.col("is_met"), pl.col("severity") == "critical")
    (examples,) = told["examples"].to_list()
    assert json.loads(examples)[0]["subject"].startswith("101/1000")
