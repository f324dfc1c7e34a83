"""The inventory filled by polls: as agents tell it, from when they tell it, beside a file; and looked up."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.micro_batch import is_behind
from pipelines.reference_refresh import run_refresh
from tests.assets.counters import T0, Sample
from tests.pipelines.event_time import Silver
from tests.pipelines.test_counter_rates import append

DESCRIPTIONS, DEVICES, LOOKUP = "silver.device_descriptions", "reference.devices", "gold.located_rates"
DEVICE = "sw1:161"
LOOKED_UP = {
    "name": "located_rates",
    "kind": "lookup",
    "from": "silver.counter_rates",
    "lookup": [{"name": "device", "from": DEVICES}],
    "select": {"hostname": "device.hostname", "rack": "device.rack"},
}


def renamed(second: int, *, upto: int = 600) -> list[Sample]:
    """A poll every 30 s; the device has another name from a second on."""
    return [(s, "sysName", "old" if s < second else "new") for s in range(0, upto, 30)]


def carry(silver: Silver, *names: str) -> None:
    silver.compute(DESCRIPTIONS)
    assert run_refresh(silver.context, silver.context.tables[DEVICES]).problem is None
    silver.compute(*names)


def told(silver: Silver) -> list[tuple[Any, ...]]:
    rows = silver.stored(DEVICES).sort("device_id", "valid_from")
    return rows.select("device_id", "hostname", "rack", "valid_from", "valid_to").rows()


def at(second: int) -> datetime:
    return T0 + timedelta(seconds=second)


def test_polls_alone_make_an_inventory_with_history(tmp_path: Path) -> None:
    silver = Silver(tmp_path)
    append(silver, [*renamed(120), (0, "sysLocation", "BN:HQ/RCKN:4"), (300, "sysLocation", "BN:HQ/RCKN:4")])
    assert is_behind(silver.context) is not None
    carry(silver)
    assert told(silver) == [(DEVICE, "old", "4", at(0), at(120)), (DEVICE, "new", "4", at(120), None)]
    before = silver.context.lakehouse.head(silver.context.tables[DEVICES].stored).batch_id
    append(silver, renamed(0, upto=630)[-1:])
    carry(silver)
    assert silver.context.lakehouse.head(silver.context.tables[DEVICES].stored).batch_id == before, "nothing is new"


def test_late_polls_give_what_all_at_once_give(tmp_path: Path) -> None:
    polls = renamed(120)
    late = Silver(tmp_path / "late")
    for part in (polls[5::2], polls[:2], polls):
        append(late, [sample for sample in part if part is not polls or sample not in (*polls[5::2], *polls[:2])])
        carry(late)
    whole = Silver(tmp_path / "whole")
    append(whole, polls)
    carry(whole)
    assert told(late) == told(whole) == [(DEVICE, "old", None, at(0), at(120)), (DEVICE, "new", None, at(120), None)]


def test_a_lookup_takes_what_was_told_at_the_time(tmp_path: Path) -> None:
    silver = Silver(tmp_path, [LOOKED_UP])
    counter: list[Sample] = [(s, "ifHCInOctets", s * 10) for s in range(0, 600, 30)]
    append(silver, [*renamed(10**6), *counter])
    carry(silver, "silver.counter_rates", LOOKUP)
    assert set(silver.rows(LOOKUP)["hostname"]) == {"old"}
    append(silver, [(s + 630, name, value) for s, name, value in renamed(0, upto=60)] + [(630, "ifHCInOctets", 6300)])
    carry(silver, "silver.counter_rates", LOOKUP)
    rows = silver.rows(LOOKUP).sort("observed_at")
    assert rows["hostname"].to_list() == ["old"] * 20 + ["new"]
    assert rows["batch_id"].n_unique() == 2, "what was right stays as it was written"


def test_a_file_comes_first_and_polls_fill_what_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    columns = "device_id,ip_address,hostname,device_location,device_type,vendor,model,firmware_version,updated_at"
    file.write_text(f"{columns}\n{DEVICE},,,BN:HQ/RCKN:9,switch,,,,\nsw9:161,,nine,,,,,,\n")
    silver = Silver(tmp_path / "lake", options={"reference": [{"name": "devices", "file": str(file)}]})
    append(silver, [*renamed(120), (0, "sysLocation", "BN:HQ/RCKN:4")])
    carry(silver)
    always = datetime(1, 1, 1, tzinfo=T0.tzinfo)
    nine = ("sw9:161", "nine", None, always, None)
    assert told(silver) == [(DEVICE, "new", "9", always, None), nine]
    append(silver, [(630, "sysName", "newest")])
    carry(silver)
    assert told(silver) == [
        (DEVICE, "new", "9", always, silver.now),
        (DEVICE, "newest", "9", silver.now, None),
        nine,
    ]
    file.write_text(f"{columns}\nsw9:161,,nine,,,,,,\n")
    os.utime(file, (1, 1))
    silver.now += timedelta(minutes=1)
    carry(silver)
    live = silver.stored(DEVICES).filter(pl.col("valid_to").is_null()).sort("device_id")
    assert live.select("device_id", "hostname", "rack").rows() == [(DEVICE, "newest", "4"), ("sw9:161", "nine", None)]
