"""What an operator sees in a browser: Dagster's web server over a small lakehouse in which one run was made."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.catalog import load_tables
from pipelines.config import load_config
from pipelines.definitions import definitions
from pipelines.services import child_environment, dagster_home, stages
from pipelines.up import Supervisor
from tests.pipelines.plant import Plant, Reading
from tests.services import free_port, require_binary
from tests.ui.chromium import Browser

TABLES = load_tables()
CONFIG = """
[lakehouse]
path = "lake"
[micro_batch]
duration = "0s"
[[mqtt]]
name = "north"
topics = ["factory_iot/north/#"]
"""
Show = Callable[..., str]


def carry_once(folder: Path) -> str:
    """Lands readings and carries them in one run of the job; returns the run's id."""
    plant = Plant(folder)
    plant.land([b"{broken", *(Reading(s, t, float(s + t)).payload for s in range(3) for t in range(0, 300, 10))])
    with dg.DagsterInstance.get() as instance:
        run = definitions().resolve_job_def("micro_batch").execute_in_process(instance=instance)
    assert run.success
    return run.run_id


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A lakehouse, a Dagster home and a finished run, named by the environment."""
    require_binary("chromium")
    folder = tmp_path_factory.mktemp("ui")
    (folder / "secchi.toml").write_text(CONFIG)
    config = load_config(folder / "secchi.toml")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in child_environment(folder / "secchi.toml", dagster_home(config)).items():
            patch.setenv(name, value)
        yield carry_once(config.lakehouse.path)


@pytest.fixture(scope="module")
def show(run_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    """Starts code server and web server as ``secchi up`` does; returns what shows the text of a page."""
    config_path, port, logs = Path(os.environ["SECCHI_CONFIG"]), free_port(), tmp_path_factory.mktemp("logs")
    browser = Browser(require_binary("chromium"), tmp_path_factory.mktemp("profile"))
    with Supervisor(logs, pytest.fail) as supervisor:
        for stage in stages(load_config(config_path), config_path, "127.0.0.1", port):
            supervisor.start(*(child for child in stage if child.name in ("code", "web")))
        yield lambda path, *expected: browser.text(f"http://127.0.0.1:{port}/{path}", *expected)


def test_catalog_shows_every_table_of_every_layer(show: Show) -> None:
    names = [f"{table.layer} / {table.name}" for table in TABLES.values()]
    page = show("assets", *names, "Materialized")
    assert [name for name in names if name not in page] == []
    assert "landing / mqtt_messages" in page and "sender / mqtt / north" in page
    assert "ml / sensor_window_model" in page
    for table in TABLES.values():
        assert table.description.split("\n")[0] in page, table.identifier


def test_newest_run_succeeded(show: Show, run_id: str) -> None:
    page = show("runs", run_id[:8], "Success")
    newest = page[page.index(run_id[:8]) :]
    assert "micro_batch" in newest and "Success" in newest
    assert "Failure" not in page


@pytest.fixture(scope="module")
def page(show: Show) -> str:
    """The page of a silver table."""
    return show("assets/silver/sensor_readings?view=overview", "Row count 90", "Table Plots", "quarantined_reasons")


def test_asset_explains_itself(page: str) -> None:
    assert "One row a reading of a factory sensor: a measurement of one series at one time." in page
    for column in TABLES["silver.sensor_readings"].columns:
        assert column.name in page
        assert column.description.split("`")[0].strip() in page, column.name
    assert "Row count 90" in page
    assert "telemetry" in page and "micro_batches" in page, "owner and sensor"


def test_numbers_of_an_asset_can_be_plotted(page: str) -> None:
    """The toggle stands over the metadata of the last materialization."""
    assert "Metadata Table Plots" in page
    numbers = page[page.index("Metadata Table Plots") :]
    for name in ("rows", "bytes", "quarantined", "duplicates", "lag_seconds", "batch_id"):
        assert name in numbers


def test_checks_tab_shows_the_contract_and_the_suite(show: Show) -> None:
    page = show("assets/silver/sensor_readings?view=checks", "contract", "expectations", "Passed")
    assert "Checks (2)" in page
    assert "Judged row by row before each commit" in page
    assert "One row for each site_id, device_id, sensor_id, unit, observed_at" in page
    assert "violations" in page and "Plots" in page


def test_lineage_shows_what_a_table_comes_from_and_what_comes_of_it(show: Show) -> None:
    names = ("sensor_readings", "sensor_windows_1m", "anomaly_scores", "sensor_window_model")
    page = show("assets/gold/sensor_windows_1m?view=lineage", *names)
    assert [name for name in names if name not in page] == []
