"""Every expectation is met by good rows and not met by bad ones: the cases stand in ``tests/data_quality/cases``."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from data_quality.suites import domain_of, row_expectations, run_suite
from tests.data_quality.cases import plain
from tests.data_quality.cases.silver_snmp_samples import polled

HERE = Path(__file__).resolve().parent
NO_CASES = {"__init__", "changes"}
CASES: dict[str, ModuleType] = {
    path.stem: import_module(f"tests.data_quality.cases.{path.stem}")
    for path in sorted((HERE / "cases").glob("*.py"))
    if path.stem not in NO_CASES
}
DOMAINS = {
    path.stem for path in (HERE.parents[1] / "data_quality").glob("*.py") if "def expectations()" in path.read_text()
}


def unmet(table: ModuleType, rows: pl.DataFrame, page: Path) -> list[str]:
    result = run_suite(table.TABLE, rows, page)
    return [each["description"] for each in result.expectations if not each["success"]]


def untried(descriptions: Iterable[str], cases: Iterable[str]) -> list[str]:
    """The expectations that no case starts like."""
    tried = tuple(cases)
    return [text for text in descriptions if not text.startswith(tried)]


@pytest.mark.parametrize("name", CASES)
def test_good_rows_meet_every_expectation(name: str, tmp_path: Path) -> None:
    table = CASES[name]
    result = run_suite(table.TABLE, table.rows(), tmp_path / "page.html")
    assert [e["description"] for e in result.expectations if not e["success"]] == []
    assert result.evaluated == len(result.expectations) > len(table.TABLE.schema)
    assert all(e["error"] is None for e in result.expectations)


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, table in CASES.items() for number in range(len(table.BAD))]
)
def test_bad_rows_do_not_meet_the_expectation(name: str, number: int, tmp_path: Path) -> None:
    change, description = CASES[name].BAD[number]
    found = unmet(CASES[name], change(CASES[name].rows()), tmp_path / "page.html")
    assert any(text.startswith(description) for text in found), found


def test_every_module_of_expectations_has_cases() -> None:
    assert DOMAINS and DOMAINS - CASES.keys() == set()


@pytest.mark.parametrize("name", CASES)
def test_every_expectation_has_a_bad_case(name: str) -> None:
    """What the declaration says is tried on the plain table, whose columns have every type and rule."""
    table = CASES[name]
    domain = domain_of(table.TABLE)
    expected = domain.expectations() if domain else row_expectations(table.TABLE, table.rows())
    assert expected
    assert untried([e.description for e in expected], [text for _, text in table.BAD]) == []


def test_an_expectation_without_a_case_is_found() -> None:
    expected = [e.description for e in row_expectations(plain.TABLE, plain.rows())]
    assert untried(expected, [text for _, text in plain.BAD[1:]]) == [plain.BAD[0][1]]


@pytest.mark.parametrize(
    ("counts", "uptimes", "data_type"),
    [
        ([2**32 - 10, 5], None, "Counter32"),  # a wrap
        ([50, 5], [1000, 20], "Counter32"),  # a restart
        ([50, 5], [1000, 59], "Counter32"),  # right behind the sample before
        ([50, 5], [None, None], "Counter64"),  # nobody can tell
        ([2**64 - 10, 5], None, "Counter64"),
    ],
)
def test_counter_may_wrap_and_restart(
    counts: list[int], uptimes: list[int | None] | None, data_type: str, tmp_path: Path
) -> None:
    table = CASES["silver_snmp_samples"]
    assert unmet(table, polled(counts, uptimes, data_type), tmp_path / "page.html") == []
