"""Calculations from secchi.toml and the files that it includes: what check and preview say about them."""

from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.config import load_config
from pipelines.context import open_context
from resources.errors import ConfigurationError
from tests.pipelines.event_time import START
from tests.pipelines.plant import Plant, Reading

MINUTES = """
[[calculation]]
name = "{name}"
from = "silver.sensor_readings"
by = ["site_id", "device_id", "sensor_id"]
window = {{kind = "tumbling", size = "1m"}}
aggregate = {{readings = "{expression}"}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "secchi.toml"
    path.write_text(
        'include = ["more/*.toml"]\n[lakehouse]\npath = "lake"\n' + MINUTES.format(name="a", expression="count()")
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.toml").write_text(MINUTES.format(name="b", expression="count()"))
    return path


def test_included_calculation_is_a_table(config: Path) -> None:
    tables = open_context(load_config(config)).tables
    assert {"gold.a", "gold.b"} <= tables.keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINUTES.format(name="b", expression="max(measurment)"), "did you mean 'measurement'?"),
        (MINUTES.format(name="a", expression="count()"), "calculation 'a': gold.a is there already"),
        ("[mqtt]\n", "mqtt is not a known key; known are calculation, threshold; it is included by"),
        ("[[calculation", "Expected"),
    ],
)
def test_mistake_in_an_included_file_names_it(
    config: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config.parent / "more" / "b.toml"
    file.write_text(text)
    assert main(["--config", str(config), "check"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"secchi: {file}: ") and message in told and told.count("\n") == 1


def test_include_that_matches_nothing_is_a_mistake(config: Path) -> None:
    config.write_text('include = ["more/*.tml"]')
    with pytest.raises(
        ConfigurationError, match=r"include\[0\] must match a file, relative to this one, got 'more/\*.tml'"
    ):
        load_config(config)


def test_preview_shows_what_would_be_computed_and_writes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant = Plant(config.parent / "lake", now=START)
    plant.land(Reading(1, s, 1.0).payload for s in range(-600, 0, 10))
    plant.drain()
    context = open_context(load_config(config))
    context.clock = lambda: START
    monkeypatch.setattr("pipelines.context.open_context", lambda *_: context)
    assert main(["--config", str(config), "preview", "b", "--last", "5m", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "site_id,device_id,sensor_id,window_start,window_end,readings"
    assert len(lines) == 6 and all(line.endswith(",6") for line in lines[1:])
    assert not context.lakehouse.exists(context.tables["gold.b"].stored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preview", "c"], "preview: 'c' is no computed table; "),
        (["preview", "sensor_window_1m"], "did you mean 'gold.sensor_windows_1m'?"),
        (["preview", "b"], "preview: gold.b: its input silver.sensor_readings holds nothing yet"),
        (["preview", "b", "--last", "soon"], "--last"),
    ],
)
def test_preview_of_what_is_not_there_is_a_mistake(
    config: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    open_context(load_config(config))
    assert main(["--config", str(config), *arguments]) == 2
    assert message in capsys.readouterr().err
