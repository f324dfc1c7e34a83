"""The fenced commit: data, number and marker move together, once, and only from where the plan found them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError

from resources import lakehouse
from resources.commit import Commit, transact
from resources.errors import CommitConflictError, SourceUnavailableError
from resources.lakehouse import Lakehouse
from tests.resources.lake import FLAT, PRODUCER, append, numbers, rows, stored_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    return Lakehouse(tmp_path)


def planned(lake: Lakehouse, frm: dict[str, Any], to: dict[str, Any], batch_id: int, *values: int) -> Commit:
    files = lake.write(FLAT, rows(values), batch_id)
    return Commit(FLAT, PRODUCER, frm, to, batch_id, files)


def at_five(lake: Lakehouse) -> None:
    assert lake.commit_once(planned(lake, {}, {"input": 5}, 1, 1, 2)) == "committed"


def test_commit_moves_rows_number_and_marker_together(lake: Lakehouse) -> None:
    at_five(lake)
    head = Lakehouse(lake.path).head(FLAT)
    assert (head.batch_id, head.markers) == (1, {PRODUCER: {"input": 5}})
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2]
    assert lake.table(FLAT).current_snapshot().summary["secchi.batch_id"] == "1"  # type: ignore[index,union-attr]


@pytest.mark.parametrize("second", [9, 8, 7])
def test_overlapping_ranges_cannot_both_commit(lake: Lakehouse, second: int) -> None:
    """5 → 8 and 5 → 9, planned from the same place: the second would count 6 to 8 twice."""
    at_five(lake)
    one = planned(lake, {"input": 5}, {"input": 8}, 2, 6, 7, 8)
    other = planned(lake, {"input": 5}, {"input": second}, 2, 60, 70, 80)
    assert lake.commit_once(one) == "committed"
    if second == 8:
        assert lake.commit_once(other) == "already"
    else:
        with pytest.raises(CommitConflictError, match=r"silver\.flat: silver\.readings is no longer at \{'input': 5\}"):
            lake.commit_once(other)
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2, 6, 7, 8]


def test_same_commit_again_is_already_done(lake: Lakehouse) -> None:
    at_five(lake)
    commit = planned(lake, {"input": 5}, {"input": 8}, 2, 6)
    assert lake.commit_once(commit) == "committed"
    assert lake.commit_once(commit) == "already"
    assert Lakehouse(lake.path).commit_once(commit) == "already"
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2, 6]


@pytest.mark.parametrize("batch_id", [1, 3])
def test_number_must_be_the_next(lake: Lakehouse, batch_id: int) -> None:
    """Rows are stamped with it: another producer's commit came between plan and commit."""
    at_five(lake)
    with pytest.raises(CommitConflictError):
        lake.commit_once(planned(lake, {"input": 5}, {"input": 6}, batch_id, 6))
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2]


def test_producers_have_markers_of_their_own(lake: Lakehouse) -> None:
    at_five(lake)
    other = replace(planned(lake, {}, {"other": 1}, 2, 9), producer="silver.other")
    assert lake.commit_once(other) == "committed"
    assert lake.head(FLAT).markers == {PRODUCER: {"input": 5}, "silver.other": {"other": 1}}


def test_commit_without_rows_is_fenced_too(lake: Lakehouse) -> None:
    at_five(lake)
    stale = Lakehouse(lake.path)
    nothing = Commit(FLAT, PRODUCER, {"input": 5}, {"input": 6}, 2)
    assert lake.commit_once(nothing) == "committed"
    with pytest.raises(CommitConflictError):
        stale.commit_once(replace(nothing, to={"input": 7}))
    assert lake.head(FLAT).batch_id == 2


def test_many_committers_make_one_commit(tmp_path: Path) -> None:
    """Each with a catalog of its own, all from the same place, at the same time."""
    at_five(Lakehouse(tmp_path))
    lakes = [Lakehouse(tmp_path) for _ in range(4)]
    commits = [planned(lake, {"input": 5}, {"input": 6 + n}, 2, 6 + n) for n, lake in enumerate(lakes)]

    def attempt(lake: Lakehouse, commit: Commit) -> str:
        try:
            return lake.commit_once(commit)
        except CommitConflictError:
            return "conflict"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(attempt, lakes, commits))
    assert outcomes == ["committed", "conflict", "conflict", "conflict"]
    assert len(stored_rows(tmp_path, FLAT)) == 3


def test_lost_race_is_tried_again_from_the_marker(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another producer's commit wins the swap: the first loses its number, and nothing is written twice."""
    at_five(lake)
    rival = Lakehouse(lake.path)

    def late(table: Any, commit: Commit) -> None:
        monkeypatch.setattr(lakehouse, "transact", transact)
        append(rival, FLAT, rows([100]))
        transact(table, commit)

    commit = planned(lake, {"input": 5}, {"input": 6}, 2, 6)
    monkeypatch.setattr(lakehouse, "transact", late)
    with pytest.raises(CommitConflictError):
        lake.commit_once(commit)
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2, 100]


@pytest.mark.parametrize("has_committed", [True, False])
def test_unknown_outcome_is_told_by_the_marker(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, has_committed: bool
) -> None:
    """The catalog's answer is lost, with the swap made or not; the files of the attempt stay in either case."""
    at_five(lake)

    def lose(table: Any, commit: Commit) -> None:
        if has_committed:
            transact(table, commit)
        raise OperationalError("update", {}, Exception("disk I/O error"))

    commit = planned(lake, {"input": 5}, {"input": 6}, 2, 6)
    monkeypatch.setattr(lakehouse, "transact", lose)
    if has_committed:
        assert lake.commit_once(commit) == "committed"
    else:
        with pytest.raises(SourceUnavailableError, match=r"silver\.flat: commit failed: .*disk I/O error"):
            lake.commit_once(commit)
    monkeypatch.setattr(lakehouse, "transact", transact)
    assert lake.commit_once(commit) == ("already" if has_committed else "committed")
    assert numbers(stored_rows(lake.path, FLAT)) == [1, 2, 6]


def test_commit_gives_up_where_every_swap_is_lost(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    at_five(lake)

    def lose(*_: Any) -> None:
        raise CommitFailedException("the metadata was swapped")

    monkeypatch.setattr(lakehouse, "transact", lose)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SourceUnavailableError, match=r"silver\.flat: 8 commits met another writer"):
        lake.commit_once(planned(lake, {"input": 5}, {"input": 6}, 2, 6))
