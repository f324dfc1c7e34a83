"""A lakehouse that is not as it should be: every command answers in one line."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.cli import main
from pipelines.collect.mqtt import RECORD, SOURCE
from pipelines.config import load_config
from resources.errors import ConfigurationError
from resources.landing import LandingLimits, LandingStream
from tests.pipelines.plant import Plant, Reading

COMMANDS = (["check"], ["status"], ["tables"], ["sql", "FROM silver.sensor_readings"], ["process"], ["maintain"])
SILVER = "lake/warehouse/silver/sensor_readings"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant of thirty readings; ten more wait in landing."""
    folder = tmp_path_factory.mktemp("plant")
    plant = Plant(folder / "lake")
    plant.land(Reading(1, s, float(s)).payload for s in range(30))
    plant.drain()
    plant.land(Reading(1, s, float(s)).payload for s in range(25, 40))
    plant.stream.close()
    shutil.copytree(folder / "lake", folder / "kept")
    return folder


@pytest.fixture
def folder(original: Path) -> Path:
    """Always at one place, since Iceberg tables know their absolute locations."""
    lake = original / "lake"
    lake.unlink() if lake.is_file() else shutil.rmtree(lake)
    shutil.copytree(original / "kept", lake)
    (original / "secchi.toml").write_text('[lakehouse]\npath = "lake"\n')
    return original


def lake_is_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "lake")
    (folder / "lake").write_text("not a directory")


def parent_is_a_file(folder: Path) -> None:
    (folder / "secchi.toml").write_text('[lakehouse]\npath = "secchi.toml/lake"\n')


def parent_is_gone(folder: Path) -> None:
    (folder / "gone").unlink(missing_ok=True)
    (folder / "gone").symlink_to("nowhere")
    (folder / "secchi.toml").write_text('[lakehouse]\npath = "gone/lake"\n')


def data_file_is_gone(folder: Path) -> None:
    for file in (folder / SILVER).rglob("*.parquet"):
        file.unlink()


def data_file_is_garbage(folder: Path) -> None:
    for file in (folder / SILVER).rglob("*.parquet"):
        file.write_bytes(b"garbage")


def metadata_is_gone(folder: Path) -> None:
    for file in (folder / SILVER).rglob("*.json"):
        file.unlink()


def catalog_is_garbage(folder: Path) -> None:
    (folder / "lake" / "catalog.db").write_bytes(b"garbage" * 1000)


def landing_has_garbage(folder: Path) -> None:
    stream = next((folder / "lake" / "landing" / "mqtt_messages").glob("*/*"))
    (stream / "000000000003.arrows").write_bytes(b"garbage")
    (stream / "000x.arrows").write_bytes(b"not ours")
    segment = stream / "000000000002.arrows"
    segment.write_bytes(segment.read_bytes()[:-100])


READING = "sql process"
ALL = "check status tables sql process maintain"


@pytest.mark.parametrize(
    ("damage", "failing", "message"),
    [
        (lake_is_a_file, ALL, r"lakehouse\.path must be a directory, got .*lake"),
        (parent_is_a_file, ALL, r"lakehouse\.path must be a directory, got .*, but .*secchi\.toml is none"),
        (parent_is_gone, ALL, r"lakehouse\.path must be a directory, got .*, but .*gone is none"),
        (data_file_is_gone, READING, r"silver/sensor_readings/data/[^ ]+ is gone; restore it from a backup"),
        (data_file_is_garbage, READING, r"silver/sensor_readings/data/[^ ]+ is damaged; restore it from a backup"),
        (metadata_is_gone, "status tables sql process maintain", r"metadata\.json.*No such file or directory"),
        (catalog_is_garbage, "status tables sql process maintain", r"catalog\.db: file is not a database; restore it"),
        (landing_has_garbage, "", ""),
    ],
)
def test_damage_is_told_in_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None], failing: str, message: str
) -> None:
    damage(folder)
    for command in COMMANDS:
        code = main(["--config", str(folder / "secchi.toml"), *command])
        told = capfd.readouterr()
        assert not re.search(r"Traceback|[Ee]rrno|os error|\w+Error", told.out + told.err), (command, told)
        lines = [line for line in told.err.splitlines() if line.startswith("secchi: ")]
        if command[0] in failing.split():
            assert code in (1, 2) and len(lines) == 1 and re.search(message, lines[0]), (command, told)
        elif command == ["check"] and failing:  # it warns of tables that it cannot compare
            assert code == 0 and all(re.search(message, line) for line in lines), (command, told)
        else:
            assert (code, lines) == (0, []), (command, told)


def test_garbage_in_landing_is_in_quarantine(folder: Path) -> None:
    landing_has_garbage(folder)
    plant = Plant(folder / "lake")
    plant.drain()
    reasons = plant.table("quarantine.records")["reason"].to_list()
    assert reasons.count("segment_unreadable") == 2, reasons


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("properties",), None),
        (("topic_parts", "properties"), None),
        (("payload", "properties"), "has no column 'payload', which bronze.mqtt_messages requires"),
    ],
)
def test_segment_of_another_version(tmp_path: Path, names: tuple[str, ...], reason: str | None) -> None:
    plant = Plant(tmp_path)
    kept = [field for field in RECORD if field.name not in names]
    older = LandingStream(plant.context.landing, SOURCE, "mqtt", pa.schema(kept), LandingLimits())
    values = {"broker": "north", "topic": "factory_iot/north/101", "qos": 1, "retain": False, "received_at": plant.now}
    values |= {"payload": Reading(1, 1, 1.0).payload, "topic_parts": None}
    older.write([[values[field.name] for field in kept]])
    older.close()
    plant.drain()
    assert plant.table("silver.sensor_readings").height == (0 if reason else 1)
    told = plant.table("quarantine.records")["message"].to_list()
    assert [reason in message and "before an upgrade" in message for message in told] == ([True] if reason else [])


def test_segment_with_values_of_another_type_is_in_quarantine(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    fields = [field.with_type(pa.string()) if field.name == "qos" else field for field in RECORD]
    other = LandingStream(plant.context.landing, SOURCE, "mqtt", pa.schema(fields), LandingLimits())
    other.write([("north", "factory_iot/north/101", "one", False, b"", plant.now, None, None)])
    other.close()
    plant.land([Reading(1, 1, 1.0).payload])
    plant.drain()
    assert plant.table("quarantine.records")["reason"].to_list() == ["segment_unreadable"]
    assert plant.table("silver.sensor_readings").height == 1


def test_place_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For root every place can; that it is asked is what is tested."""
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigurationError, match=r"secchi\.toml: lakehouse\.path must be a place that can be written"):
        load_config(folder / "secchi.toml")
