"""Groups beside the sensors: labels, explanations, backtest, drift and policies work for their things alike."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.scoring import judged_windows
from data_quality.suites import run_suite
from ml.quantities import FEATURES
from pipelines.automation import first_model_sensor
from pipelines.backtesting import backtest, write_plot
from pipelines.cli import main
from pipelines.context import Context
from pipelines.drift import check_drift
from pipelines.explaining import explain
from pipelines.explaining import write_plot as write_explanation
from pipelines.labels import add_label, known_labels
from pipelines.readiness import train_if_needed
from pipelines.training import MODEL, is_asked_for, request_name, train
from resources.commit import Commit
from resources.errors import ConfigurationError, SecchiError
from tests.assets.test_interface_scores import MINUTES, SCORES, STEP, T0, add, rates, scored, stored

MINUTE = timedelta(minutes=1)
DEVICE = {"device_id": "10.0.0.7:161"}
FIRST = {**DEVICE, "interface_id": "1"}
FAULT = (T0 + STEP * MINUTE, T0 + MINUTES * MINUTE)
NAME = "interface"


def judged(folder: Path, document: dict[str, Any] | None = None) -> Context:
    """A model of the minutes before the fault; the fault is judged by it."""
    context = stored(folder, rates(STEP), document)
    context.clock = lambda: T0 + timedelta(hours=7)
    assert train_if_needed(context, NAME)
    add(context, rates().filter(pl.col("window_start") >= FAULT[0]))
    scored(context)
    return context


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return judged(tmp_path_factory.mktemp("still"))


def flagged(context: Context, quantity: str) -> dict[str, Any]:
    rows = context.lakehouse.read(context.tables[SCORES].stored)
    return rows.filter("is_anomaly", quantity=quantity, interface_id="1").sort("window_start").row(0, named=True)


@pytest.mark.parametrize("quantity", ["in_bits_per_second", "speed_bits_per_second"])
def test_score_is_computed_again_to_the_last_bit(still: Context, quantity: str, tmp_path: Path) -> None:
    row = flagged(still, quantity)
    told = explain(still, row["score_id"])
    assert (told.table.identifier, told.differences, told.since) == (SCORES, [], [])
    assert told.recomputed is not None and told.recomputed.contributions == json.loads(row["contributions"])
    assert told.windows.filter(window_start=row["window_start"])["mean"].item() > 1
    assert explain(still, row["score_id"], NAME).row == told.row
    with pytest.raises(SecchiError, match=r"column score_id of gold\.anomaly_scores has those"):
        explain(still, row["score_id"], MODEL)
    write_explanation(told, tmp_path / "why.png")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")


def test_every_score_has_an_id_of_its_own(still: Context) -> None:
    ids = still.lakehouse.read(still.tables[SCORES].stored)["score_id"]
    assert ids.null_count() == 0 and ids.n_unique() == len(ids) == 4 * MINUTES * 6


def test_scores_meet_every_expectation(still: Context, tmp_path: Path) -> None:
    table = still.tables[SCORES]
    found = run_suite(table, still.lakehouse.read(table.stored), tmp_path / "page.html")
    assert [e["description"] for e in found.expectations if not e["success"]] == []
    assert "An anomaly has a score above its threshold" in {e["description"] for e in found.expectations}


def test_minute_that_was_corrected_since_is_told(tmp_path: Path) -> None:
    context = judged(tmp_path)
    row = flagged(context, "in_bits_per_second")
    table = context.tables["gold.interface_rates_1m"]
    rows = context.lakehouse.read(table.stored)
    files = context.lakehouse.files(table.stored)
    is_it = (pl.col("window_start") == row["window_start"]) & (pl.col("interface_id") == "1")
    corrected = rows.filter(is_it).with_columns(in_bits_per_second=9e8, revision=1)
    head = context.lakehouse.head(table.stored)
    added = context.lakehouse.write(table.stored, corrected, head.batch_id + 1)
    added += context.lakehouse.write(table.stored, rows.filter(~is_it), 1)
    marker = head.markers["test"]
    context.lakehouse.commit_once(
        Commit(table.stored, "test", marker, {"part": 9}, head.batch_id + 1, added, tuple(files))
    )
    scored(context)
    told = explain(context, row["score_id"])
    assert told.differences == [] and told.row["score"] == row["score"]
    assert any("revision 0 was judged, it is 1 now" in line for line in told.since)
    assert any("was judged again" in line for line in told.since)


def test_label_of_a_switch_is_one_of_each_of_its_interfaces(tmp_path: Path) -> None:
    context = stored(tmp_path, rates())
    context.clock = lambda: T0 + timedelta(hours=8)
    everything = train(context, NAME).rows
    add_label(context, "maintenance", DEVICE, (T0, T0 + 10 * MINUTE), group=NAME)
    add_label(context, "confirmed", {**FIRST, "quantity": "in_bits_per_second"}, FAULT, "loop", group=NAME)
    add_label(context, "confirmed", {"site_id": 101, "device_id": 1000}, FAULT)
    context.clock = lambda: T0 + timedelta(hours=9)
    assert train(context, NAME).rows == everything - 10 * 4 * 6 - (MINUTES - STEP)
    table = context.tables[SCORES]
    spans = known_labels(context, table, judged_windows(table, rates()))
    assert spans.group_by("kind").len().sort("kind").rows() == [("confirmed", 1), ("maintenance", 4)]
    sensors = context.tables["gold.anomaly_scores"]
    assert known_labels(context, sensors, pl.DataFrame()).select("site_id", "device_id").rows() == [(101, 1000)]


def test_false_alarm_raises_the_threshold_of_its_column_alone(tmp_path: Path) -> None:
    context = stored(tmp_path, rates())
    context.clock = lambda: T0 + timedelta(hours=8)
    plain = context.models.load(NAME, train(context, NAME).model_id).baselines
    add_label(context, "false_alarm", {**FIRST, "quantity": "in_bits_per_second"}, FAULT, group=NAME)
    context.clock = lambda: T0 + timedelta(hours=9)
    told = context.models.load(NAME, train(context, NAME).model_id).baselines
    assert plain["excess_floor"].null_count() == plain.height
    assert told.filter(pl.col("excess_floor").is_not_null())["sensor_id"].to_list() == ["in_bits_per_second"]


@pytest.mark.parametrize(
    ("group", "of", "message"),
    [
        ("port", FIRST, "model 'port': no declared table uses it"),
        (NAME, {"if_name": "eth0"}, "'if_name' tells nothing of its things; name .*'interface_id', 'quantity'"),
        (NAME, {"quantity": "if_index"}, "has no quantity 'if_index'"),
        (MODEL, FIRST, "is of sensors; name the device by --site and --device"),
    ],
)
def test_label_of_what_is_not_there_is_refused(still: Context, group: str, of: dict[str, str], message: str) -> None:
    with pytest.raises((SecchiError, ConfigurationError), match=message):
        add_label(still, "confirmed", of, FAULT, group=group)


def test_backtest_finds_what_is_labelled_and_writes_nothing(tmp_path: Path) -> None:
    context = stored(tmp_path / "lake", rates())
    add_label(context, "confirmed", FIRST, FAULT, group=NAME)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    told = backtest(context, T0 + 300 * MINUTE, FAULT[1], model=NAME)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert told.rows.columns[:3] == ["device_id", "interface_id", "windows"]
    first, *others, every = told.rows.to_dicts()
    assert (first["device_id"], first["interface_id"], first["windows"]) == ("10.0.0.7:161", "1", 100 * 6)
    assert (first["faults"], first["found"], first["precision"]) == (1, 1, 1.0)
    assert [row["precision"] for row in others] == [None] * 3
    assert (every["windows"], every["recall"]) == (4 * 100 * 6, 1.0)
    write_plot(told, tmp_path / "backtest.png")


def test_drift_of_a_group_asks_for_its_own_training(tmp_path: Path) -> None:
    context = stored(tmp_path, rates(STEP))
    context.clock = lambda: T0 + timedelta(hours=7)
    assert train_if_needed(context, NAME)
    later = rates(STEP).with_columns(
        pl.col("window_start", "window_end") + timedelta(days=1), pl.col("^.*_bits_per_second$") * 1.1
    )
    add(context, later)
    scored(context)
    context.clock = lambda: T0 + timedelta(days=9)
    found = check_drift(context, context.tables[SCORES])
    assert found is not None and found.is_asked and "level" in found.moved
    assert set(found.stability) <= {*FEATURES, "score"}
    assert is_asked_for(context, NAME) and not is_asked_for(context)
    (row,) = context.lakehouse.read(context.tables["ops.requests"].stored).filter(kind="training").to_dicts()
    assert row["table_name"] == request_name(NAME) == "ml.interface_model"
    with dg.DagsterInstance.ephemeral() as instance:
        asked = first_model_sensor(context.config)(dg.build_sensor_context(instance))
    assert isinstance(asked, dg.RunRequest) and asked.asset_selection == [dg.AssetKey(["ml", "interface_model"])]


def test_policy_of_a_group_holds_for_the_series_that_it_names(still: Context, tmp_path: Path) -> None:
    match = {"interface_id": "1", "quantity": "in_bits_per_second"}
    policy = {"group": NAME, "match": match, "direction": "below"}
    context = judged(tmp_path, {"ml": {"min_windows": 500, "policy": [policy, {"match": {"site_id": 101}}]}})

    def anomalies(of: Context) -> dict[str, int]:
        rows = of.lakehouse.read(of.tables[SCORES].stored).filter("is_anomaly", interface_id="1")
        return dict(rows.filter(pl.col("window_start") >= FAULT[0]).group_by("quantity").len().rows())

    quiet, plain = anomalies(context), anomalies(still)
    assert plain["in_bits_per_second"] > 0 and "in_bits_per_second" not in quiet
    assert quiet["out_bits_per_second"] == plain["out_bits_per_second"]
    row = flagged(context, "out_bits_per_second")
    assert explain(context, row["score_id"]).since == []


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"group": "port"}, r"ml\.policy\[0\]: group = 'port' is none; there are \['interface'\]"),
        ({"group": NAME, "match": {"site_id": 1}}, "names 'site_id'; a series of gold.interface_scores is told by"),
        ({"match": {"quantity": "x"}}, "names 'quantity'; a series of gold.anomaly_scores is told by"),
        ({"match": {"site_id": "101"}}, r"match\.site_id must be Int64, got '101'"),
    ],
)
def test_mistake_in_a_policy_is_told(tmp_path: Path, policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stored(tmp_path, rates(1), {"ml": {"policy": [policy]}})


def test_commands_take_a_group(still: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "secchi.toml"
    config.write_text(f'[lakehouse]\npath = "{still.config.lakehouse.path}"\n[ml]\nmin_windows = 500\n')
    call = ["--config", str(config)]
    span = ["--from", f"{T0 + 300 * MINUTE:%Y-%m-%dT%H:%M}", "--to", f"{FAULT[1]:%Y-%m-%dT%H:%M}"]
    of = [f"{name}={value}" for name, value in FIRST.items()]
    assert main([*call, "label", "maintenance", *of, "--group", NAME, *span]) == 0
    assert "maintenance of device_id=10.0.0.7:161 interface_id=1 " in capsys.readouterr().out
    assert main([*call, "label", "maintenance", *of, *span]) == 2
    assert main([*call, "label", "maintenance", "--group", NAME, "--site", "1", "--device", "2", *span]) == 2
    assert main([*call, "label", "maintenance", "--site", "1", *span]) == 2
    row = flagged(still, "speed_bits_per_second")
    assert main([*call, "explain", row["score_id"], "--group", NAME, "--png", str(tmp_path / "why.png")]) == 0
    shown = capsys.readouterr().out
    for text in ("interface_id=1 quantity=speed_bits_per_second", "equal to the last bit", "rarity of speed_bits"):
        assert text in shown
    png = str(tmp_path / "backtest.png")
    assert main([*call, "backtest", "--group", NAME, *span, "--png", png, "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("device_id,interface_id,windows,")
