"""A backtest: sees nothing of what came later, writes nothing, and counts as told."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.ml import commit_windows
from pipelines.backtesting import Backtest, backtest, groups, write_plot
from pipelines.cli import main
from pipelines.config import Config, LakehouseConfig
from pipelines.context import Context, open_context
from pipelines.labels import add_label
from pipelines.settings.ml import ModelConfig
from pipelines.training import NotEnoughWindowsError, train
from resources.errors import SecchiError
from tests.ml.windows import MINUTE, T0, frame, simulated, window

WINDOWS = 800
LOW, HIGH = T0 + 500 * MINUTE, T0 + WINDOWS * MINUTE


def lake(folder: Path, rows: pl.DataFrame) -> Context:
    config = Config(lakehouse=LakehouseConfig(path=folder), ml=ModelConfig(trees=30, min_windows=100))
    context = open_context(config)
    context.clock = lambda: HIGH
    commit_windows(context, rows.drop("is_faulty", strict=False))
    return context


def faults_of(rows: pl.DataFrame) -> Iterator[tuple[tuple[int, int], int, pl.DataFrame]]:
    """Device, sensor and windows of each fault of five minutes."""
    for part in rows.filter("is_faulty").partition_by("sensor_id", maintain_order=True):
        for at in range(0, part.height, 5):
            yield (part["site_id"][at], part["device_id"][at]), part["sensor_id"][at], part[at : at + 5]


@pytest.fixture(scope="module")
def faulty() -> pl.DataFrame:
    return simulated(series=8, windows=WINDOWS, seed=3, fault=lambda random, n: 12.0)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, faulty: pl.DataFrame) -> Context:
    """Device 1000 (four sensors) has a label for each fault, the other one none."""
    context = lake(tmp_path_factory.mktemp("labelled") / "lake", faulty)
    for device, sensor, part in faults_of(faulty.filter(device_id=1000)):
        span = (part["window_start"][0], part["window_end"][-1])
        add_label(context, "confirmed", {"site_id": device[0], "device_id": device[1], "sensor_id": sensor}, span)
    return context


@pytest.fixture(scope="module")
def told(labelled: Context) -> Backtest:
    return backtest(labelled, LOW, HIGH)


def test_faults_are_found_and_counted_where_there_are_labels(told: Backtest, faulty: pl.DataFrame) -> None:
    own, other, every = told.groups.to_dicts()
    in_span = [part for _, _, part in faults_of(faulty.filter(device_id=1000)) if part["window_end"][-1] > LOW]
    assert (own["device_id"], own["faults"], own["windows"]) == (1000, len(in_span), 4 * 300)
    assert own["recall"] >= 0.9 and own["precision"] >= 0.9
    assert (other["precision"], other["recall"], other["faults"]) == (None, None, 0)
    assert other["alarms"] > 0
    assert every["alarms"] == own["alarms"] + other["alarms"] and every["precision"] == own["precision"]
    assert every["alarms_a_day"] == pytest.approx(every["alarms"] / (300 / 1440))


def test_what_comes_later_changes_nothing(told: Backtest, faulty: pl.DataFrame, tmp_path: Path) -> None:
    """The verdicts up to a time are those of a lakehouse that ends there."""
    cut = LOW + 100 * MINUTE
    early = lake(tmp_path, faulty.filter(pl.col("window_end") <= cut))
    # No label was said before the span, so none counts in the training of either.
    short = backtest(early, LOW, HIGH).judged.drop("is_fault")
    whole = told.judged.filter(pl.col("window_end") <= cut).drop("is_fault")
    assert short.equals(whole) and short.height == 8 * 100


def test_nothing_is_written(labelled: Context) -> None:
    def state() -> dict[str, int]:
        root = labelled.config.lakehouse.path
        return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}

    before = state()
    backtest(labelled, LOW, LOW + 30 * MINUTE)
    assert state() == before


def test_champion_that_saw_the_span_says_so(faulty: pl.DataFrame, tmp_path: Path) -> None:
    context = lake(tmp_path, faulty.filter(device_id=1000))
    with pytest.raises(SecchiError, match="none is in use; without --champion"):
        backtest(context, LOW, HIGH, use_champion=True)
    train(context)
    assert "HAS SEEN" in backtest(context, LOW, HIGH, use_champion=True).model
    assert "trained on" in backtest(context, LOW, HIGH).model
    later = frame(*(window(WINDOWS + minute, device_id=1000) for minute in range(5)))
    commit_windows(context, later, part=2)
    assert "has not seen" in backtest(context, HIGH, HIGH + 5 * MINUTE, use_champion=True).model


def test_too_little_before_the_span_and_nothing_in_it_are_told(labelled: Context) -> None:
    with pytest.raises(NotEnoughWindowsError, match="--champion judges with the model in use"):
        backtest(labelled, T0 + MINUTE, HIGH)
    with pytest.raises(SecchiError, match="no final window starts from"):
        backtest(labelled, HIGH + timedelta(days=1), HIGH + timedelta(days=2))


def test_alarms_in_maintenance_and_of_unlabelled_devices_do_not_count() -> None:
    rows = frame(*(window(minute, device_id=1001 + device) for device in (0, 1) for minute in range(4)))
    judged = rows.select("site_id", "device_id", "window_start", "window_end").with_columns(
        is_anomaly=pl.lit(True),
        is_alarm=pl.lit(True),
        is_fault=pl.Series([True, False, False, True] * 2),
        is_maintenance=pl.Series([False, True, False, False] * 2),
    )
    faults = pl.DataFrame({"site_id": [101, 101], "device_id": [1001, 1001], "is_found": [True, False]})
    labelled = pl.DataFrame({"site_id": [101], "device_id": [1001]})
    one, other, every = groups(judged, faults, labelled).to_dicts()
    assert (one["alarms"], one["precision"], one["recall"]) == (4, 2 / 3, 0.5)
    assert (other["alarms"], other["precision"], other["recall"]) == (4, None, None)
    assert (every["alarms"], every["precision"], every["recall"]) == (8, 2 / 3, 0.5)


def test_plot_is_a_png(told: Backtest, tmp_path: Path) -> None:
    write_plot(told, tmp_path / "backtest.png")
    assert (tmp_path / "backtest.png").read_bytes().startswith(b"\x89PNG")


def test_command_prints_a_row_a_device(labelled: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, png = tmp_path / "secchi.toml", tmp_path / "out.png"
    config.write_text(f'[lakehouse]\npath = "{labelled.config.lakehouse.path}"\n[ml]\ntrees = 30\nmin_windows = 100\n')
    span = ["--from", f"{LOW:%Y-%m-%dT%H:%M}", "--to", f"{HIGH:%Y-%m-%dT%H:%M}"]
    call = ["--config", str(config), "backtest", *span, "--png", str(png), "--format", "csv"]
    assert main(call) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 4 and "trained on" in shown.err and png.exists()
    assert main([*call[:4], span[3], "--to", span[1]]) == 2
