"""Lookups of calculations: which version a row takes, and mistakes told in one line."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from assets.calculation import calculation
from assets.catalog import load_tables
from assets.declarations import Declarations
from assets.lookups import Lookup, Taken
from assets.side_input import ALWAYS
from assets.table import UTC_TIME, Table
from resources.errors import ConfigurationError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
OWNERS = {"name": "owners", "key": ["device"], "columns": {"device": "INTEGER", "owner": "VARCHAR"}}
REFERENCE = pl.DataFrame(
    [
        (1, "Ann", ALWAYS, NOON, 1),
        (1, "Bo", NOON, NOON + HOUR, 2),
        (1, "Cy", NOON + 2 * HOUR, None, 3),
        (2, "Di", NOON, None, 2),
    ],
    schema={"device": pl.Int32, "owner": pl.String, "valid_from": UTC_TIME, "valid_to": UTC_TIME, "version": pl.Int64},
    orient="row",
)


@pytest.mark.parametrize(
    ("device", "hours", "taken", "found"),
    [
        (1, -1, "event_time", ("Ann", 1)),
        (1, 0, "event_time", ("Bo", 2)),
        (1, 0.99, "event_time", ("Bo", 2)),
        (1, 1, "event_time", (None, None)),
        (1, 2, "event_time", ("Cy", 3)),
        (2, -1, "event_time", (None, None)),
        (3, 1, "event_time", (None, None)),
        (None, 1, "event_time", (None, None)),
        (1, -1, "newest", ("Cy", 3)),
        (2, -1, "newest", ("Di", 2)),
        (None, -1, "newest", (None, None)),
    ],
)
def test_row_takes_what_was_right_at_its_time(
    device: int | None, hours: float, taken: Taken, found: tuple[str | None, int | None]
) -> None:
    lookup = Lookup("owner", "owners", ("device",), ("device_id",), taken, ("owner", "version"))
    times = {"device_id": device, "observed_at": NOON + hours * HOUR}
    rows = pl.DataFrame([times], schema={"device_id": pl.Int64, "observed_at": UTC_TIME})
    given = lookup.onto(rows, "observed_at", REFERENCE)
    assert given.columns == ["device_id", "observed_at", "owner.owner", "owner.version"]
    assert given.select("owner.owner", "owner.version").row(0) == found


def built(**changes: Any) -> Table:
    definition = {
        "name": "owned",
        "kind": "lookup",
        "from": "silver.sensor_readings",
        "lookup": [{"name": "owner", "from": "reference.owners", "on": {"device": "device_id"}}],
        "select": {"measurement": "measurement", "who": "coalesce(owner.owner, 'nobody')"},
        **changes,
    }
    given = {key: value for key, value in definition.items() if value is not None}
    return calculation(given, load_tables(declared=[Declarations("secchi.toml", references=(OWNERS,))]), "secchi.toml")


def test_table_says_where_its_columns_come_from() -> None:
    table = built()
    lineage = {c.name: c.lineage for c in table.columns}
    assert lineage["who"] == ("reference.owners.owner",) and lineage["owner_version"] == ("reference.owners.version",)
    assert [t.identifier for t in table.references] == ["reference.owners"]
    assert table.key == ("site_id", "device_id", "sensor_id", "unit", "observed_at")
    assert table.definition != built(select={"who": "owner.owner"}).definition


def lookup(**changes: Any) -> dict[str, Any]:
    return {"lookup": [{"name": "owner", "from": "reference.owners", "on": {"device": "device_id"}, **changes}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from": "silver.sensor_reading"}, "from: 'silver.sensor_reading' is no table; did you mean 'silver.sensor_r"),
        ({"from": "bronze.mqtt_messages"}, "from: 'bronze.mqtt_messages' is not a silver or gold table"),
        ({"lookup": []}, "lookup must have at least 1 item"),
        ({"lookups": []}, "lookups is not a known key; did you mean lookup?"),
        (
            lookup(**{"from": "reference.owner"}),
            "lookup[0].from: 'reference.owner' is no side input; did you mean 'ref",
        ),
        (lookup(**{"from": "reference.labels"}), "lookup[0].from: 'reference.labels' is no side input"),
        (lookup(on={}), "reference.owners is looked up by 'device', and 'device' is no column of silver.sensor_readi"),
        (
            lookup(on={"device": "devise_id"}),
            "'devise_id' is no column of silver.sensor_readings: did you mean 'device",
        ),
        (lookup(on={"devise": "device_id"}), "lookup[0].on: 'devise' is not in the key of reference.owners: did you"),
        (lookup(on={"device": "unit"}), "'unit' of silver.sensor_readings is String, but 'device' of reference.owners"),
        (lookup(version="latest"), "lookup[0].version must be 'event_time' or 'newest', got 'latest'"),
        ({"lookup": lookup()["lookup"] * 2}, "lookup[1].name 'owner' stands twice"),
        (
            {"select": {"who": "owner.ovner"}},
            "select.who names 'owner.ovner', which is no column: did you mean 'owner.",
        ),
        ({"select": {"who": "count()"}}, "select.who: Binder Error"),
        ({"select": {"owner_version": "1"}}, "select.owner_version has the name of a column that every row has"),
        ({"select": {"unit": "unit"}}, "select.unit has the name of a column of the key; choose another"),
        ({"where": "owner.owner"}, "where must be a condition, got 'owner.owner', which is VARCHAR"),
        (
            {
                "kind": None,
                "select": None,
                "by": ["site_id", "device_id"],
                "window": {"kind": "tumbling", "size": "1m"},
                "aggregate": {"owner_version": "count()"},
            },
            "'owner_version' is the column that keeps the version of a lookup; choose another name",
        ),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        built(**changes)
    assert str(error.value).startswith("secchi.toml: calculation 'owned': ")
    assert message in str(error.value) and "\n" not in str(error.value)
