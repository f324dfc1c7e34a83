"""Descriptions through the tables: late polls move, add and retract rows; in the end it is as all at once."""

from pathlib import Path

import polars as pl

from tests.assets.counters import Sample
from tests.pipelines.event_time import Silver
from tests.pipelines.test_counter_rates import append

DESCRIPTIONS = "silver.device_descriptions"
ALL: list[Sample] = [(s, "sysName", "a" if s < 120 else "b") for s in range(0, 600, 60)]


def computed(folder: Path, *parts: list[Sample]) -> Silver:
    silver = Silver(folder)
    for part in parts:
        append(silver, part)
        silver.compute(DESCRIPTIONS)
    return silver


def told(silver: Silver) -> pl.DataFrame:
    return silver.rows(DESCRIPTIONS).drop("batch_id", "is_retracted")


def test_late_polls_give_what_all_at_once_give(tmp_path: Path) -> None:
    whole = told(computed(tmp_path / "whole", ALL))
    late = computed(tmp_path / "late", ALL[1::2], ALL[::4], ALL[2::4])
    assert whole["sys_name"].to_list() == ["a", "b"]
    assert told(late).equals(whole)
    assert late.stored(DESCRIPTIONS)["is_retracted"].any(), "what seemed to begin later is retracted"
    assert not told(computed(tmp_path / "less", ALL[1::2])).equals(whole), "negative control"
