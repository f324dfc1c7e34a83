"""Versions of side inputs: which row is right when, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from assets.catalog import load_tables
from assets.declarations import Declarations
from assets.reference.calibrations import calibrations
from assets.reference.sites import sites
from assets.side_input import ALWAYS, Versions, reference
from resources.errors import ConfigurationError, SourceUnavailableError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
VERSIONS = Versions("reference.owners", ("device",), {"device": pl.Int64(), "owner": pl.String()})
EMPTY = pl.DataFrame(
    schema={
        **VERSIONS.columns,
        **dict.fromkeys(("valid_from", "valid_to", "loaded_at"), pl.Datetime("us", "UTC")),
        "version": pl.Int64,
    }
)
Told = list[tuple[Any, ...]]


def taken(*versions: dict[int, str]) -> tuple[pl.DataFrame, datetime | None]:
    """The table after these versions came an hour apart, and since when the last one differs."""
    rows, since = EMPTY, None
    number = 1
    for hour, said in enumerate(versions):
        given = VERSIONS.given(pl.DataFrame({"device": list(said), "owner": list(said.values())}))
        rows, since = VERSIONS(rows, given, NOON + hour * HOUR, number)
        number += since is not None
    return rows, since


def told(rows: pl.DataFrame) -> Told:
    columns = ["device", "owner", "valid_from", "valid_to", "version"]
    return rows.select(columns).sort("device", "valid_from").rows()


def test_first_version_was_always_right() -> None:
    rows, since = taken({1: "Ann"})
    assert told(rows) == [(1, "Ann", ALWAYS, None, 1)]
    assert since == ALWAYS


def test_what_changes_is_right_from_the_moment_it_was_seen() -> None:
    rows, since = taken({1: "Ann", 2: "Bo", 3: "Cy"}, {1: "Ann", 2: "Di", 4: "Ed"})
    one = NOON + HOUR
    assert told(rows) == [
        (1, "Ann", ALWAYS, None, 1),
        (2, "Bo", ALWAYS, one, 1),
        (2, "Di", one, None, 2),
        (3, "Cy", ALWAYS, one, 1),
        (4, "Ed", one, None, 2),
    ]
    assert since == one


def test_same_again_is_no_version() -> None:
    rows, since = taken({1: "Ann"}, {1: "Ann"}, {1: "Bo"})
    assert rows["version"].to_list() == [1, 2] and since == NOON + 2 * HOUR
    again, since = taken({1: "Ann"}, {1: "Ann"})
    assert told(again) == told(taken({1: "Ann"})[0]) and since is None


def test_clock_that_goes_back_makes_no_span_of_no_length() -> None:
    rows, _ = taken({1: "Ann"}, {1: "Bo"})
    back, _ = VERSIONS(rows, VERSIONS.given(pl.DataFrame({"device": [1], "owner": ["Cy"]})), NOON, 3)
    assert (back["valid_to"] > back["valid_from"]).fill_null(True).all()


def dated(*lines: tuple[int, str, str | None, str | None]) -> pl.DataFrame:
    raw = pl.DataFrame(lines, schema=["device", "owner", "since", "until"], orient="row")
    return VERSIONS.given(raw, "since", "until")


def test_source_that_tells_times_is_believed() -> None:
    first, since = VERSIONS(EMPTY, dated((1, "Ann", None, None), (1, "Bo", "2026-02-01", "2026-02-10")), NOON, 1)
    february, tenth = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 10, tzinfo=UTC)
    assert told(first) == [(1, "Ann", ALWAYS, february, 1), (1, "Bo", february, tenth, 1)] and since == ALWAYS
    more = dated((1, "Ann", None, None), (1, "Bo", "2026-02-01", "2026-02-05"), (1, "Cy", "2026-02-08", None))
    second, since = VERSIONS(first, more, NOON + HOUR, 2)
    assert [(owner, version) for _, owner, _, _, version in told(second)] == [("Ann", 1), ("Bo", 1), ("Cy", 2)]
    assert since == datetime(2026, 2, 5, tzinfo=UTC)
    gone, since = VERSIONS(second, dated((1, "Ann", None, None)), NOON + 2 * HOUR, 3)
    assert told(gone) == [(1, "Ann", ALWAYS, None, 1)] and since == february


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"device": [1]}, "there is no column 'owner'; there are device"),
        ({"device": [1, 1], "owner": ["a", "b"]}, "device = '1' stands in several rows; a key may stand once"),
        ({"device": [1, None], "owner": ["a", "b"]}, "1 of 2 rows have no 'device', which names the row"),
        ({"device": ["1", "x"], "owner": ["a", "b"]}, "column 'device': 'x' in row 2 is no whole number that fits"),
        ({"device": [1.5], "owner": ["a"]}, "column 'device': 1.5 in row 1 is no whole number that fits"),
        ({"device": [1], "owner": [2.5]}, "column 'owner': 2.5 in row 1 is no text (1 of 1 rows)"),
    ],
)
def test_source_that_cannot_be_used_is_refused(rows: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(SourceUnavailableError) as error:
        VERSIONS.given(pl.DataFrame(rows))
    assert message in str(error.value)


def test_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(SourceUnavailableError, match="1 rows end"):
        dated((1, "Ann", "2026-02-10", "2026-02-01"))


def test_times_are_read_as_they_are_written() -> None:
    texts = ["2026-03-01", "2026-03-01 12:00", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5+02:00"]
    raw = pl.DataFrame({"device": ["1"] * 4, "owner": ["a"] * 4, "since": texts}).unique("since", maintain_order=True)
    with pytest.raises(SourceUnavailableError, match="stands in several rows"):
        VERSIONS.given(raw, "since")
    read = VERSIONS.given(raw.with_columns(pl.int_range(4).alias("device")), "since")["valid_from"].to_list()
    assert read == [NOON.replace(hour=0), NOON, NOON, NOON - 2 * HOUR + timedelta(seconds=0.5)]


def _declared(**changes: Any) -> None:
    told = {"name": "owners", "key": ["device"], "columns": {"device": "BIGINT", "owner": "VARCHAR"}, **changes}
    reference(told, load_tables(), "secchi.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Owners"}, "reference 'Owners': name must match pattern"),
        (
            {"key": None},
            "reference 'owners': key is missing; only the built-in ones (calibrations, devices, sites) have it",
        ),
        ({"key": ["devise"]}, "key names 'devise', which is no column: did you mean 'device'?"),
        ({"columns": {"device": "BIGIN"}}, "columns.device must be a type, got 'BIGIN'; did you mean 'BIGINT'?"),
        ({"columns": {"device": "BIGINT", "version": "BIGINT"}}, "columns.version has the name of a column that every"),
        ({"name": "sites"}, "key is that of the built-in table (site_id); leave it out"),
        ({"name": "labels"}, "reference.labels is built in and has another source; choose another name"),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        _declared(**changes)
    assert str(error.value).startswith("secchi.toml: reference ") and message in str(error.value)


def test_name_stands_once() -> None:
    told = {"name": "sites", "source": "a file"}
    with pytest.raises(ConfigurationError, match="reference 'sites' stands twice"):
        load_tables(declared=[Declarations("secchi.toml", references=(told, told))])


def test_built_in_tables_are_filled_by_name() -> None:
    assert reference({"name": "sites", "source": ""}, load_tables(), "secchi.toml") is sites
    assert isinstance(calibrations.function, Versions)
    assert calibrations.key == ("site_id", "device_id", "sensor_id", "valid_from")
