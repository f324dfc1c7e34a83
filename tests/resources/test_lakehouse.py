"""Tables, reads, and files that are replaced by others."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.commit import Commit
from resources.errors import CommitConflictError, ConfigurationError, SchemaMismatchError, SourceUnavailableError
from resources.lakehouse import Lakehouse
from resources.selection import Among, Ranges, Where, changes
from resources.stored_table import StoredTable
from tests.resources.lake import FLAT, PRODUCER, READINGS, SCHEMA, START, append, numbers, rows, stored_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(tmp_path)


# --- the schema --------------------------------------------------------------------------------------------------


def declared(**columns: pl.DataType) -> StoredTable:
    return replace(FLAT, schema={**SCHEMA, **columns})


def test_new_column_is_added_and_null_in_old_rows(lake: Lakehouse) -> None:
    append(lake, FLAT, rows([1]))
    wider = declared(unit=pl.String())
    after = Lakehouse(lake.path)
    append(after, wider, rows([2]).with_columns(unit=pl.lit("BAR")))
    for reader in (after, Lakehouse(lake.path)):
        found = reader.read(wider).sort("value")
        assert found["unit"].to_list() == [None, "BAR"]
        assert found.schema == pl.Schema(wider.schema)
    assert after.head(wider).batch_id == 2


def test_required_column_that_stored_rows_lack_is_refused_with_the_way_out(lake: Lakehouse) -> None:
    wider = replace(declared(unit=pl.String()), required=frozenset({"unit", "value"}))
    lake.table(FLAT)
    assert "unit" in Lakehouse(lake.path).table(replace(wider, name="flat")).schema().column_names, "no row lacks it"
    older = replace(FLAT, name="older")
    append(lake, older, rows([1]))
    with pytest.raises(
        SchemaMismatchError, match="declare it without required, so that it is null in them, or"
    ) as told:
        Lakehouse(lake.path).table(replace(wider, name="older"))
    assert str(told.value).startswith("silver.older: the stored rows have no column 'unit', which is declared as ")
    assert numbers(stored_rows(lake.path, older)) == [1]


def test_old_process_goes_on_beside_a_new_column(lake: Lakehouse) -> None:
    append(lake, FLAT, rows([1]))
    append(Lakehouse(lake.path), declared(unit=pl.String()), rows([2]).with_columns(unit=pl.lit("BAR")))
    assert numbers(lake.read(FLAT)) == [1]
    lake.table(FLAT, refresh=True)
    assert numbers(lake.read(FLAT)) == [1, 2]
    assert "unit" not in lake.read(FLAT).columns


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (declared(value=pl.Int64()), "stored column 'value' is double, declared as long"),
        (
            replace(FLAT, schema={n: t for n, t in SCHEMA.items() if n != "value"}),
            "stored column 'value' is double, no longer declared",
        ),
    ],
    ids=["changed", "gone"],
)
def test_other_changes_are_refused_with_the_way_out(lake: Lakehouse, table: StoredTable, message: str) -> None:
    append(lake, FLAT, rows([1]))
    with pytest.raises(SchemaMismatchError) as error:
        Lakehouse(lake.path).table(table)
    assert str(error.value).startswith(f"silver.flat: {message}; ")
    assert str(error.value).endswith("; declare it as it is stored, or give the table another name")
    with pytest.raises(SchemaMismatchError, match="another name"):
        Lakehouse(lake.path).compare(table)
    assert numbers(stored_rows(lake.path, FLAT)) == [1]


def test_place_that_cannot_be_written_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    with pytest.raises(
        SourceUnavailableError, match=r"^lakehouse\.path: cannot write .*/lake/warehouse: Not a directory$"
    ):
        Lakehouse(tmp_path / "lake")


def test_comparing_creates_nothing(lake: Lakehouse) -> None:
    lake.compare(FLAT)
    assert not lake.exists(FLAT)
    append(lake, FLAT, rows([1]))
    lake.compare(declared(unit=pl.String()))
    assert "unit" not in lake.table(FLAT, refresh=True).schema().column_names


def test_order_of_declared_columns_does_not_matter(lake: Lakehouse) -> None:
    append(lake, FLAT, rows([1]))
    turned = replace(FLAT, schema=dict(reversed(SCHEMA.items())))
    append(Lakehouse(lake.path), turned, rows([2]))
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2]


def test_several_processes_may_be_the_first(tmp_path: Path) -> None:
    """They make the catalog and the table, and add a column to it, at the same time."""
    append(Lakehouse(tmp_path / "old"), FLAT, rows([1]))
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace; import polars as pl\n"
        "from resources.lakehouse import Lakehouse; from tests.resources.lake import FLAT, SCHEMA\n"
        "wider = replace(FLAT, schema={**SCHEMA, 'unit': pl.String()})\n"
        "print('ready', flush=True); sys.stdin.read()\n"
        "for name in ('new', 'old'): Lakehouse(Path(sys.argv[1]) / name).table(wider)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) for _ in range(4)]
    for process in started:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    assert Lakehouse(tmp_path / "old").read(declared(unit=pl.String()))["unit"].to_list() == [None]


def test_lost_catalog_is_refused_until_it_is_back(tmp_path: Path) -> None:
    """A new one would begin every table again, and take what is still in landing twice."""
    append(Lakehouse(tmp_path), FLAT, rows([1]))
    (tmp_path / "catalog.db").rename(tmp_path / "kept.db")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"holds tables, but catalog\.db is gone; restore it"):
            Lakehouse(tmp_path)
    (tmp_path / "kept.db").rename(tmp_path / "catalog.db")
    assert numbers(stored_rows(tmp_path, FLAT)) == [1]


def test_copy_is_refused(tmp_path: Path) -> None:
    append(Lakehouse(tmp_path / "one"), FLAT, rows([1]))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(ConfigurationError, match=r"two: was moved or copied; its catalog points to .*/one/"):
        Lakehouse(tmp_path / "two")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert numbers(stored_rows(tmp_path / "link", FLAT)) == [1], "another way to the same place"


def test_kill_while_the_first_table_is_made_is_no_obstacle(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pyiceberg.catalog.sql import SqlCatalog\n"
        "from resources.lakehouse import Lakehouse; from tests.resources.lake import FLAT\n"
        "write = SqlCatalog._write_metadata\n"
        "def die(*arguments): write(*arguments); os.kill(os.getpid(), signal.SIGKILL)\n"
        "SqlCatalog._write_metadata = staticmethod(die)\n"
        "Lakehouse(Path(sys.argv[1])).table(FLAT)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == -9
    assert list(tmp_path.rglob("*.metadata.json"))
    append(Lakehouse(tmp_path), FLAT, rows([1]))
    assert numbers(stored_rows(tmp_path, FLAT)) == [1]


# --- reading -----------------------------------------------------------------------------------------------------


def test_columns_that_were_asked_for_and_no_others(lake: Lakehouse) -> None:
    append(lake, READINGS, rows(range(5)))
    for reader in (lake, Lakehouse(lake.path)):
        found = reader.read(READINGS, Ranges("value", [(1.0, 3.0)]), columns=["at"])
        assert found.columns == ["at"] and found.height == 2


def test_table_without_rows_has_its_columns(lake: Lakehouse) -> None:
    assert lake.read(READINGS).schema == pl.Schema(SCHEMA)
    assert lake.files(READINGS) == []
    assert lake.read(READINGS, changes(0, 9), columns=["at"]).schema == pl.Schema({"at": SCHEMA["at"]})
    assert lake.exists(READINGS) and not lake.exists(FLAT)


spans = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 90)), min_size=1, max_size=4)
values_of = st.lists(st.integers(0, 300), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lakehouse, pl.DataFrame]:
    """Six batches over three sensors and five hours, read by a process that did not write them."""
    writer = Lakehouse(tmp_path_factory.mktemp("known"))
    for number in range(6):
        batch = [rows(range(number * 40 + offset, number * 40 + 60 + offset, 3), s) for offset, s in enumerate("abc")]
        append(writer, READINGS, pl.concat(batch))
    reader = Lakehouse(writer.path)
    return reader, reader.read(READINGS)


@given(spans, values_of, st.sampled_from(["at", "value", "batch_id"]))
@settings(max_examples=60)
def test_pruning_hides_no_row(
    known: tuple[Lakehouse, pl.DataFrame], spans: list[tuple[int, int]], values: list[int], column: str
) -> None:
    lake, everything = known
    of: dict[str, Callable[[int], Any]] = {
        "at": lambda n: START + timedelta(minutes=n),
        "value": float,
        "batch_id": lambda n: n % 9,
    }
    ranges = Ranges(column, [(of[column](low), of[column](low + size)) for low, size in spans])
    among = Among("value", [float(n) for n in values])
    conditions: list[list[Where]] = [[ranges], [among], [ranges, among, Among("sensor", ["b", "zz"])]]
    for where in conditions:
        expected = everything.filter(*(w.polars() for w in where)).sort("at", "sensor", "value", "batch_id")
        assert lake.read(READINGS, *where).sort("at", "sensor", "value", "batch_id").equals(expected)


def test_files_are_pruned(known: tuple[Lakehouse, pl.DataFrame]) -> None:
    """The control of the test above: not every file is looked at."""
    lake, _ = known
    every = len(lake.files(READINGS))
    assert len(lake.files(READINGS, Among("sensor", ["b"]))) == every / 3
    assert 0 < len(lake.files(READINGS, changes(5, 6))) < every / 3
    assert lake.files(READINGS, Ranges("at", [(START - timedelta(days=2), START)])) == []


def test_range_of_batches_ends_before_too_many_rows(lake: Lakehouse) -> None:
    for size in (4, 4, 20, 4):
        append(lake, FLAT, rows(range(size)))
    assert lake.batch_within(FLAT, 0, 4, 1) == 1, "one batch at least"
    assert lake.batch_within(FLAT, 0, 4, 8) == 2
    assert lake.batch_within(FLAT, 2, 4, 5) == 3
    assert lake.batch_within(FLAT, 0, 4, 1000) == 4
    assert lake.batch_within(FLAT, 4, 4, 1) == 4


# --- rewriting ---------------------------------------------------------------------------------------------------


def compact(lake: Lakehouse, stored: StoredTable = FLAT) -> bool:
    """Merges every file of a table into one a partition."""
    lake.table(stored, refresh=True)
    files = lake.files(stored)
    merged = lake.read_files(stored, files).sort(stored.sort)
    return lake.rewrite(stored, files, lake.write_sorted(stored, merged))


def feed(lake: Lakehouse, stored: StoredTable, head: int) -> list[pl.DataFrame]:
    """What a reader gets that takes one batch after the other."""
    order = ["at", "sensor"]
    return [lake.read(stored, changes(number, number + 1)).sort(order) for number in range(head)]


@pytest.mark.parametrize("stored", [FLAT, READINGS], ids=lambda stored: stored.name)
def test_merged_files_keep_rows_numbers_and_the_change_feed(lake: Lakehouse, stored: StoredTable) -> None:
    for number in range(6):
        append(lake, stored, rows(range(number * 25, number * 25 + 25)))
    before, head = stored_rows(lake.path, stored), lake.head(stored)
    was_fed, files = feed(lake, stored, 6), len(lake.files(stored))
    assert compact(lake, stored)
    after = Lakehouse(lake.path)
    assert stored_rows(lake.path, stored).equals(before)
    assert (after.head(stored).batch_id, after.head(stored).markers) == (head.batch_id, head.markers)
    assert len(after.files(stored)) < files
    for reader in (lake, after):
        reader.table(stored, refresh=True)
        fed = feed(reader, stored, 6)
        assert [batch.equals(was) for batch, was in zip(fed, was_fed, strict=True)] == [True] * 6
    assert all(batch.height == 25 for batch in was_fed)
    append(after, stored, rows([999]))
    assert after.head(stored).batch_id == 7


def test_rewrite_that_met_a_commit_changes_nothing(lake: Lakehouse) -> None:
    for number in range(3):
        append(lake, FLAT, rows([number]))
    files = lake.files(FLAT)
    merged = lake.write_sorted(FLAT, lake.read_files(FLAT, files).sort(FLAT.sort))
    append(Lakehouse(lake.path), FLAT, rows([3]))
    assert not lake.rewrite(FLAT, files, merged)
    assert numbers(stored_rows(lake.path, FLAT)) == [0, 1, 2, 3]
    assert compact(lake), "a new plan succeeds"
    assert numbers(stored_rows(lake.path, FLAT)) == [0, 1, 2, 3]


def test_append_that_met_a_rewrite_commits(lake: Lakehouse) -> None:
    for number in range(3):
        append(lake, FLAT, rows([number]))
    commit = Commit(FLAT, PRODUCER, {"input": 3}, {"input": 4}, 4, lake.write(FLAT, rows([3]), 4))
    assert compact(Lakehouse(lake.path))
    assert lake.commit_once(commit) == "committed"
    assert numbers(stored_rows(lake.path, FLAT)) == [0, 1, 2, 3]


def test_replacement_of_a_file_that_was_merged_away_is_planned_again(lake: Lakehouse) -> None:
    """Else the neighbours of the replaced row would stand in the merged file and in the new one."""
    for number in range(3):
        append(lake, FLAT, rows([number, number + 10]))
    lake.table(FLAT, refresh=True)
    (old,) = (f for f in lake.files(FLAT, Ranges("value", [(1.0, 2.0)])) if f.record_count == 2 and holds(lake, f, 1.0))
    new = lake.write(FLAT, rows([1, 11]).with_columns(value=pl.col("value") + 0.5), 4)
    assert compact(Lakehouse(lake.path))
    with pytest.raises(CommitConflictError, match="compacted away"):
        lake.commit_once(Commit(FLAT, PRODUCER, {"input": 3}, {"input": 4}, 4, new, [old]))
    assert numbers(stored_rows(lake.path, FLAT)) == [0, 1, 2, 10, 11, 12]
    assert lake.head(FLAT).batch_id == 3


def holds(lake: Lakehouse, file: Any, value: float) -> bool:
    return value in lake.read_files(FLAT, [file])["value"]


def test_rewrites_and_commits_in_turn_lose_nothing(tmp_path: Path) -> None:
    """One thread appends, another merges as often as it can: each loses or wins as a whole."""
    append(Lakehouse(tmp_path), FLAT, rows([0]))

    def appends() -> None:
        lake = Lakehouse(tmp_path)
        for number in range(1, 16):
            append(lake, FLAT, rows([number]))

    lake = Lakehouse(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        appending = pool.submit(appends)
        while not appending.done():
            compact(lake)
        appending.result()
    assert compact(lake)
    assert numbers(stored_rows(tmp_path, FLAT)) == list(range(16))
    assert feed(Lakehouse(tmp_path), FLAT, 16)[7]["value"].to_list() == [7.0]
