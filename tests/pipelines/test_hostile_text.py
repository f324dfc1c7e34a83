"""What devices put into ids, units and topics never steers a terminal."""

import io
import json
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.pipelines.plant import Plant

HOSTILE = "B\x1b[2J\x00\x07\x7f\x9b31m\u202e\u2066\u200f\r\n\x08R"


class Terminal(io.StringIO):
    """Standard output of somebody who looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    plant = Plant(folder / "lake")
    metadata = {"siteId": 1, "deviceId": 2, "sensorId": 3, "unit": HOSTILE, "deviceType": HOSTILE, HOSTILE: HOSTILE}
    reading = {"ts": int(plant.now.timestamp() * 1000), "metadata": metadata, "measurement": 1, HOSTILE: HOSTILE}
    payloads = [json.dumps(reading).encode(), HOSTILE.encode(), json.dumps({**reading, "ts": HOSTILE}).encode()]
    plant.land(payloads, topic=f"factory_iot/{HOSTILE}/1")
    plant.drain()
    (folder / "secchi.toml").write_text('[lakehouse]\npath = "lake"\n')
    return folder / "secchi.toml"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["quarantine", "--show-raw"], "x1b[2J"),
        (["status"], "silver.sensor_readings"),
        (["sql", "SELECT unit FROM silver.sensor_readings"], "x1b[2J"),
        (["sql", "SELECT topic FROM bronze.mqtt_messages"], "x1b[2J"),
        (["sql", "FROM bronze.mqtt_messages", "--format", "csv"], "x1b[2J"),
        (["sql", "FROM silver.sensor_readings", "--format", "json"], "u001b[2J"),
        (["sql", "SELECT unit::INTEGER FROM silver.sensor_readings"], "x1b[2J"),
    ],
)
def test_terminal_gets_no_control_character(
    config: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], told: str
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "dumb")  # no bold headers
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    main(["--config", str(config), *command])
    assert told in terminal.getvalue()
    assert {c for c in terminal.getvalue() if not c.isprintable()} == {"\n"}


def test_file_gets_the_text_as_it_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--config", str(config), "sql", "SELECT unit FROM silver.sensor_readings", "--format", "json"])
    assert json.loads(capsys.readouterr().out) == [{"unit": HOSTILE}]
