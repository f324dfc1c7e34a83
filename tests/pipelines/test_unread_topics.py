"""Messages on topics that no silver table reads are not forgotten in bronze."""

from datetime import timedelta
from pathlib import Path

import pytest

from assets.catalog import load_tables
from pipelines.cli import main
from pipelines.config import parse_config
from pipelines.unread_topics import unread_filters, unread_messages
from tests.pipelines.plant import Plant, Reading

CONFIG = """
[lakehouse]
path = "lake"
[[mqtt]]
name = "north"
topics = ["factory_iot/{region}/+", "machine/#", "tank/+/level"]
"""
DECODE = """
[[decode]]
topics = ["tank/#"]
format = "number"
"""


@pytest.mark.parametrize(
    ("topic", "is_read"),
    [
        ("#", True),
        ("+/north", True),
        ("$share/group/machine/states", True),
        ("machine/states/+", True),
        ("tank/{tank}/level", True),
        ("factory_iot", False),
        ("factory/#", False),
        ("machines/#", False),
        ("tank", False),
    ],
)
def test_a_filter_that_meets_no_table_is_named(topic: str, is_read: bool) -> None:
    broker = {"name": "north", "topics": ["factory_iot/#", topic]}
    config = parse_config({"mqtt": [broker], "decode": [{"topics": ["tank/+/+"], "format": "number"}]})
    found = list(unread_filters(config, load_tables().values()))
    assert found == ([] if is_read else [f"mqtt[0].topics[1] = {topic!r}"])


def test_check_warns_and_is_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secchi.toml"
    path.write_text(CONFIG)
    assert main(["--config", str(path), "check"]) == 0
    assert capsys.readouterr().err == (
        f"secchi: warning: {path}: mqtt[0].topics[2] = 'tank/+/level': no silver table reads these topics, their "
        "messages stay in bronze; tell what they hold in [[decode]]\n"
    )
    path.write_text(CONFIG + DECODE)
    assert main(["--config", str(path), "check"]) == 0
    assert capsys.readouterr().err == ""


def test_status_counts_what_nobody_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secchi.toml"
    path.write_text(CONFIG)
    plant = Plant(tmp_path / "lake")
    assert unread_messages(plant.context) == {}
    plant.land([b"3"], topic="of/long/ago")
    plant.now += timedelta(days=2)
    plant.land([Reading(1, 1, 1.0).payload])
    plant.land([b"1", b"2"], topic="tank/7/level")
    plant.land([b"1"], topic="evil/\x1b[2J")
    plant.drain()
    assert unread_messages(plant.context) == {"tank/7/level": 2, "evil/\x1b[2J": 1}
    assert plant.table("silver.sensor_readings").height == 1
    assert main(["--config", str(path), "status"]) == 0
    assert (
        "No silver table reads 3 messages of the last 24 hours in bronze.mqtt_messages: tank/7/level (2), "
        "evil/\\x1b[2J (1); tell what they hold in [[decode]].\n"
    ) in capsys.readouterr().out
    path.write_text(CONFIG + DECODE)
    assert main(["--config", str(path), "status"]) == 0
    assert "reads 1 message of the last 24 hours" in capsys.readouterr().out
