"""Steps computed from the last two minutes and little more: the same as from all, whatever polls tell and leave out."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import closure
from tests.assets.counters import Sample, frame
from tests.pipelines.event_time import Silver
from tests.pipelines.test_counter_rates import ENGINE, RATES, SAMPLES

FACTS = ("ifName", "ifDescr", "ifHighSpeed", "ifCounterDiscontinuityTime", "sysUpTime")
every = st.fixed_dictionaries({name: st.sampled_from([20, 40, 240]) for name in FACTS})
moments = st.integers(0, 30).map(lambda n: 20 * n)


def polls(every: dict[str, int], renamed: int, rebooted: int, silent: int, count: int = 31) -> Iterator[pl.DataFrame]:
    """One frame a poll of two interfaces every 20 s: facts are told as often as ``every`` says, or never."""
    for second in range(0, 20 * count, 20):
        if silent <= second < silent + 100:
            continue
        value = {
            "ifName": "Gi2" if second >= renamed else "Gi1",
            "ifDescr": "port",
            "ifHighSpeed": 10,
            "ifCounterDiscontinuityTime": int(second >= renamed),
            "sysUpTime": (second - rebooted + 5) * 100 if second >= rebooted else 10**6 + second * 100,
        }
        facts: list[Sample] = [
            (second, name, value[name]) for name in FACTS if second % every.get(name, 20 * count) == 0
        ]
        first = frame([(second, "ifHCInOctets", second * 10), *facts], index=3)
        other = [fact for fact in facts if fact[1] not in ("sysUpTime", "ifName")]
        yield pl.concat([first, frame([(second, "ifHCInOctets", second), *other], index=4)])


def append(silver: Silver, made: pl.DataFrame) -> None:
    stored = silver.context.tables[SAMPLES].schema
    given = {n: pl.lit(None, t).alias(n) for n, t in stored.items() if n not in made.columns}
    engine = {"received_at": pl.col("observed_at"), "stream": pl.lit("s"), "sequence": pl.lit(1, pl.Int64)}
    numbered = made.with_columns(*given.values()).with_columns(**engine, row=pl.int_range(pl.len(), dtype=pl.Int32))
    rows = numbered.with_columns(request_id=pl.lit(1, pl.Int64)).select(n for n in stored if n != "batch_id")
    silver.append_frame(silver.context.tables[SAMPLES], rows)


def computed(folder: Path, parts: list[pl.DataFrame]) -> pl.DataFrame:
    silver = Silver(folder)
    for part in parts:
        append(silver, part)
        silver.compute(RATES)
    return silver.rows(RATES).drop(ENGINE, strict=False)


@example({"ifName": 240, "ifDescr": 20, "sysUpTime": 40, "ifHighSpeed": 240}, 300, 400, 200)
@given(every, moments, moments, moments)
@settings(max_examples=4)
def test_batch_by_batch_equals_all_at_once(every: dict[str, int], renamed: int, rebooted: int, silent: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        parts = list(polls(every, renamed, rebooted, silent))
        batches = [pl.concat(parts[at : at + 2]) for at in range(0, len(parts), 2)]
        found, wanted = computed(folder / "parts", batches), computed(folder / "whole", [pl.concat(parts)])
        assert found.equals(wanted)
    finally:
        shutil.rmtree(folder)


def test_what_is_polled_often_is_computed_from_what_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = closure._read

    def counted(*arguments: object) -> list[pl.DataFrame]:
        frames = original(*arguments)  # type: ignore[arg-type]
        read.append(sum(each.height for each in frames))
        return frames

    monkeypatch.setattr(closure, "_read", counted)
    parts = list(polls({"ifName": 20, "ifHighSpeed": 20, "sysUpTime": 20}, 10**6, 10**6, 10**6))
    computed(tmp_path / "often", parts)
    near, far = read[-2:]
    assert near < sum(part.height for part in parts) / 3, "of ten minutes, less than three"
    assert far < 2 * len(parts), "sysUpTime, and ifName, which the second interface does not tell"
    read.clear()
    computed(tmp_path / "rarely", parts[::6])
    assert read[-1] == sum(part.height for part in parts[::6]), "two minutes between polls: all is read"
