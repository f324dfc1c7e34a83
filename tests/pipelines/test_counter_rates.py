"""Counter steps and interface rates through the tables: any arrival of samples gives what all of them at once give."""

import shutil
import tempfile
from pathlib import Path
from random import Random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.commit import Commit
from tests.assets.counters import Sample, of_two
from tests.assets.test_counter_rates import any_samples
from tests.pipelines.event_time import Silver, carry_through

SAMPLES, RATES, INTERFACES = "silver.snmp_samples", "silver.counter_rates", "gold.interface_rates_1m"
ENGINE = ("is_final", "revision", "corrected_at", "is_retracted", "batch_id")


def rows(silver: Silver, samples: list[Sample]) -> pl.DataFrame:
    """What a batch of silver.snmp_samples holds."""
    made = of_two(samples)
    stored = silver.context.tables[SAMPLES].schema
    given = {n: pl.lit(None, t).alias(n) for n, t in stored.items() if n not in made.columns}
    engine = {"received_at": pl.col("observed_at"), "stream": pl.lit("s"), "sequence": pl.lit(1, pl.Int64)}
    numbered = made.with_columns(*given.values()).with_columns(**engine, row=pl.int_range(pl.len(), dtype=pl.Int32))
    return numbered.with_columns(request_id=pl.lit(1, pl.Int64)).select(n for n in stored if n != "batch_id")


def append(silver: Silver, samples: list[Sample]) -> None:
    if samples:
        silver.append_frame(silver.context.tables[SAMPLES], rows(silver, samples))


def computed(silver: Silver) -> list[pl.DataFrame]:
    return [silver.rows(name).drop(ENGINE, strict=False) for name in (RATES, INTERFACES)]


def at_once(folder: Path, samples: list[Sample]) -> list[pl.DataFrame]:
    silver = Silver(folder)
    append(silver, samples)
    silver.compute(RATES, INTERFACES)
    return computed(silver)


@given(
    any_samples,
    st.randoms(use_true_random=False),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=2),
)
@settings(max_examples=8)
def test_any_arrival_equals_all_at_once(
    samples: list[Sample], random: Random, sizes: list[int], crashes: list[tuple[int, bool]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="secchi-test-"))
    try:
        shuffled = list(samples)
        random.shuffle(shuffled)
        silver, left = Silver(folder / "parts"), shuffled
        for size in [*sizes, len(samples)]:
            append(silver, left[:size])
            left = left[size:]
            carry_through(silver, crashes.pop() if crashes else None, lambda: silver.compute(RATES, INTERFACES))
        for found, wanted in zip(computed(silver), at_once(folder / "whole", samples), strict=True):
            assert found.equals(wanted)
    finally:
        shutil.rmtree(folder)


def test_comparison_bites_and_a_late_sample_judges_again(tmp_path: Path) -> None:
    samples: list[Sample] = [(s, "ifHCInOctets", s * 1000) for s in (0, 30, 90)]
    late: list[Sample] = [(60, "ifHCInOctets", 31_000), (60, "ifCounterDiscontinuityTime", 7)]
    silver = Silver(tmp_path / "parts")
    append(silver, [*samples, (30, "ifCounterDiscontinuityTime", 0)])
    silver.compute(RATES, INTERFACES)
    before = computed(silver)
    append(silver, late)
    silver.compute(RATES, INTERFACES)
    wanted = at_once(tmp_path / "whole", [*samples, (30, "ifCounterDiscontinuityTime", 0), *late])
    assert [a.equals(b) for a, b in zip(computed(silver), wanted, strict=True)] == [True, True]
    assert [a.equals(b) for a, b in zip(before, wanted, strict=True)] == [False, False]
    assert silver.rows(RATES)["step"].to_list() == ["gap", "normal", "discontinuity", "normal"]
    assert silver.rows(INTERFACES)["steps_reset"].to_list() == [0, 1]


def test_a_name_that_is_known_later_moves_the_rows(tmp_path: Path) -> None:
    """A loaded MIB names what was only an OID: the rows of the OID are retracted, those of the name stand."""
    silver = Silver(tmp_path)
    table = silver.context.tables[SAMPLES]
    named = rows(silver, [(0, "ifInErrors", 1), (10, "ifInErrors", 3)])
    unnamed = named.with_columns(
        pl.lit(None, pl.String).alias(n) for n in ("object_name", "mib_module", "instance", "instance_identifier")
    )
    silver.append_frame(table, unnamed.with_columns(metric_oid=pl.lit("1.3.6.1.2.1.2.2.1.14.3")))
    silver.compute(RATES)
    assert silver.rows(RATES)["counter"].unique().to_list() == ["1.3.6.1.2.1.2.2.1.14.3"]
    lakehouse, stored = silver.context.lakehouse, table.stored
    head, old = lakehouse.head(stored), lakehouse.files(stored)
    files = lakehouse.write(stored, named, head.batch_id + 1)
    frm = head.markers[table.identifier]
    lakehouse.commit_once(Commit(stored, table.identifier, frm, {"test": 99}, head.batch_id + 1, files, old))
    silver.compute(RATES)
    assert silver.rows(RATES)["counter"].unique().to_list() == ["ifInErrors"]
