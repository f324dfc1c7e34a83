"""gold.interface_scores and the tables of groups that users declare."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from assets.catalog import load_tables
from assets.declarations import Declarations
from assets.gold.interface_rates_1m import interface_rates_1m
from assets.gold.interface_scores import INTERFACE, interface_scores
from data_quality.contract import SET_LATER, apply_contract
from ml.groups import Group
from pipelines.config import parse_config
from pipelines.context import Context, open_context
from pipelines.gold_step import run_gold
from pipelines.readiness import is_ready, train_if_needed
from resources.commit import Commit
from resources.errors import ConfigurationError

T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTES, STEP = 400, 390
SCORES = "gold.interface_scores"


def rates(minutes: int = MINUTES, interfaces: int = 4) -> pl.DataFrame:
    """Final minutes of interfaces of one switch; at ``STEP`` the first one's traffic and link speed change."""
    rows: list[dict[str, Any]] = []
    random = np.random.default_rng(0)
    for index in range(interfaces):
        for minute in range(minutes):
            start, is_faulty = T0 + timedelta(minutes=minute), index == 0 and minute >= STEP
            rate = 1e6 * (index + 1) * (1 + 0.02 * random.normal()) * (8 if is_faulty else 1)
            rows.append(
                {
                    "device_id": "10.0.0.7:161",
                    "interface_id": str(index + 1),
                    "if_index": index + 1,
                    "if_name": f"eth{index}",
                    "window_start": start,
                    "window_end": start + timedelta(minutes=1),
                    "in_bits_per_second": None if (index, minute) == (1, 50) else rate,
                    "out_bits_per_second": rate / 2,
                    "speed_bits_per_second": 1e7 if is_faulty else 1e9,
                    **dict.fromkeys(("steps_normal", "steps_wrap", "steps_reset", "steps_gap", "steps_implausible"), 0),
                    "is_final": True,
                    "revision": 0,
                }
            )
    missing = {n: t for n, t in interface_rates_1m.schema.items() if n not in rows[0]}
    frame = pl.DataFrame(rows, schema_overrides={n: t for n, t in interface_rates_1m.schema.items() if n in rows[0]})
    return frame.with_columns(pl.lit(None, t).alias(n) for n, t in missing.items())


def stored(folder: Path, rows: pl.DataFrame, document: dict[str, Any] | None = None) -> Context:
    """A lakehouse with these minutes."""
    config = parse_config({"lakehouse": {"path": str(folder)}, "ml": {"min_windows": 500}, **(document or {})})
    context = open_context(config)
    add(context, rows)
    return context


def add(context: Context, rows: pl.DataFrame) -> None:
    table = context.tables["gold.interface_rates_1m"]
    head = context.lakehouse.head(table.stored)
    files = context.lakehouse.write(table.stored, rows, head.batch_id + 1)
    part = {"part": head.batch_id + 1}
    marker = head.markers.get("test", {})
    context.lakehouse.commit_once(Commit(table.stored, "test", marker, part, head.batch_id + 1, files))


def scored(context: Context, identifier: str = SCORES) -> pl.DataFrame:
    table = context.tables[identifier]
    while run_gold(context, table).did_work:
        pass
    return context.lakehouse.read(table.stored).sort(table.key)


def test_interface_is_judged_with_no_settings(tmp_path: Path) -> None:
    context = stored(tmp_path, rates())
    before = scored(context)
    assert before.height == 4 * MINUTES * (len(INTERFACE.values) + len(INTERFACE.categories))
    assert set(before["method"].drop_nulls()) == {"robust_z"}
    assert set(before.filter(quantity="speed_bits_per_second")["reason"]) == {"too_little_history"}
    assert is_ready(context, "interface") and train_if_needed(context, "interface")
    rows = scored(context)
    assert rows.height == before.height and set(rows["method"].drop_nulls()) == {"model"}
    faulty = rows.filter(pl.col("window_start") >= T0 + timedelta(minutes=STEP), interface_id="1")
    found = set(faulty.filter("is_anomaly")["quantity"])
    assert {"in_bits_per_second", "out_bits_per_second"} <= found
    assert int(rows.filter(pl.col("interface_id") != "1")["is_anomaly"].sum()) <= 3 * MINUTES * 5 // 100
    empty = rows.filter(pl.col("score").is_null())
    assert empty.select("interface_id", "quantity", "reason").rows() == [("2", "in_bits_per_second", "missing_values")]


def test_value_that_was_never_seen_is_an_anomaly(tmp_path: Path) -> None:
    context = stored(tmp_path, rates(STEP))
    assert train_if_needed(context, "interface")
    add(context, rates().filter(pl.col("window_start") >= T0 + timedelta(minutes=STEP)))
    speeds = scored(context).filter(quantity="speed_bits_per_second")
    flagged = speeds.filter("is_anomaly")
    assert set(flagged["interface_id"]) == {"1"} and flagged["window_start"].min() == T0 + timedelta(minutes=STEP)


def test_minutes_that_come_one_by_one_are_judged_alike(tmp_path: Path) -> None:
    whole, parts = (stored(tmp_path / name, rates(STEP)) for name in ("whole", "parts"))
    late = rates().filter(pl.col("window_start") >= T0 + timedelta(minutes=STEP))
    verdicts = []
    for context, batches in ((whole, [late]), (parts, late.partition_by("window_start"))):
        assert train_if_needed(context, "interface")
        for batch in batches:
            add(context, batch)
            scored(context)
        kept = ("batch_id", "score_id", "model_id", "model_sha256", "training_tag", "training_snapshot")
        verdicts.append(scored(context).drop(kept))
    assert verdicts[0].equals(verdicts[1])


def test_declared_types_and_contract(tmp_path: Path) -> None:
    assert interface_scores.function is not None
    rows = interface_scores.function(rates(30), model=None)
    assert dict(rows.schema) == {n: t for n, t in interface_scores.schema.items() if n not in SET_LATER}
    good, bad = apply_contract(interface_scores, rows, skew=timedelta(minutes=5), earliest=T0)
    assert (good.height, bad.height) == (rows.height, 0)


def test_group_of_ones_own_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    group = {"name": "interface", "from": "gold.interface_rates_1m", "by": ["device_id"], "categories": ["if_name"]}
    rows = rates(40, interfaces=1)
    context = stored(tmp_path, rows, {"ml": {"min_windows": 30, "group": [group]}})
    assert set(scored(context)["quantity"]) == {"if_name"}
    assert train_if_needed(context, "interface")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"source": "gold.interfaces"}, "secchi.toml: ml.group 'links': from = 'gold.interfaces' is no table"),
        ({"source": "silver.snmp_samples"}, "must be a table of windows that become final"),
        ({"by": ("device",)}, "has no column 'device'"),
        ({"values": ("if_name",)}, "values: 'if_name' holds no numbers; name it under categories"),
        ({"name": "anomaly"}, "gold.anomaly_scores is there already"),
    ],
)
def test_mistake_in_a_group_is_told(group: dict[str, Any], message: str) -> None:
    usual = {"name": "links", "source": "gold.interface_rates_1m", "by": ("device_id",), "values": ("steps_gap",)}
    with pytest.raises(ConfigurationError, match=message):
        load_tables(declared=[Declarations("secchi.toml", groups=(Group(**{**usual, **group}),))])


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"values": []}, "neither values nor categories"),
        ({"values": ["steps_gap"], "categories": ["steps_gap"]}, "names the column 'steps_gap' twice"),
        ({"name": "sensor_windows", "values": ["steps_gap"]}, "which is the model of the sensors"),
    ],
)
def test_mistake_in_the_settings_of_a_group_is_told(group: dict[str, Any], message: str) -> None:
    usual = {"name": "links", "from": "gold.interface_rates_1m", "by": ["device_id"]}
    with pytest.raises(ConfigurationError, match=message):
        parse_config({"ml": {"group": [{**usual, **group}]}})
