"""Side inputs from databases: the same rows from each server, and no password in any message."""

import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, text

from pipelines.config import parse_config
from pipelines.context import TableResult
from pipelines.reference_refresh import run_refresh
from resources.errors import ConfigurationError
from tests.databases import PASSWORD, mariadb, postgresql, sqlite
from tests.pipelines.event_time import Silver
from tests.services import free_port

NAME = "reference.assets"
COLUMNS = {
    "asset_id": "BIGINT",
    "owner": "VARCHAR",
    "price": "DOUBLE",
    "is_leased": "BOOLEAN",
    "bought": "DATE",
    "checked_at": "TIMESTAMPTZ",
}
CREATE = (
    "CREATE TABLE assets (asset_id INTEGER PRIMARY KEY, owner VARCHAR(40), price DECIMAL(10, 2), is_leased BOOLEAN, "
    "bought DATE, checked_at TIMESTAMP NULL)"
)
INSERT = "INSERT INTO assets VALUES (1, 'Zoë 100%', 12.5, TRUE, '2026-01-31', '2026-02-01 12:00:00')"


@pytest.fixture(scope="module", params=[postgresql, mariadb, sqlite], ids=lambda server: str(server.__name__))
def server(request: pytest.FixtureRequest) -> Iterator[URL]:
    with request.param() as url:
        run(url, CREATE, INSERT)
        yield url


def run(url: URL, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_PASSWORD", PASSWORD)


def assets(at: URL, **changes: Any) -> dict[str, Any]:
    told = {
        "name": "assets",
        "url": URL.create(at.drivername, at.username, None, at.host, at.port, at.database).render_as_string(),
        "password": {"env": "PLANT_PASSWORD"} if at.password else None,
        "table": "assets",
        "key": ["asset_id"],
        "columns": COLUMNS,
        **changes,
    }
    return {"reference": [{key: value for key, value in told.items() if value is not None}]}


def refreshed(silver: Silver) -> TableResult:
    return run_refresh(silver.context, silver.context.tables[NAME])


def test_every_server_gives_the_same_rows(tmp_path: Path, server: URL) -> None:
    silver = Silver(tmp_path, options=assets(server))
    assert refreshed(silver).problem is None
    (row,) = silver.stored(NAME).select(*COLUMNS).rows()
    shown = [str(value) for value in row]
    assert shown == ["1", "Zoë 100%", "12.5", "True", "2026-01-31", "2026-02-01 12:00:00+00:00"]


def test_query_is_taken_as_it_is(tmp_path: Path, server: URL) -> None:
    """Percent signs and colons are no parameters."""
    query = "SELECT asset_id, owner, ':x' AS mark FROM assets WHERE owner LIKE '%100%'"
    columns = {"asset_id": "BIGINT", "owner": "VARCHAR", "mark": "VARCHAR"}
    silver = Silver(tmp_path, options=assets(server, table=None, query=query, columns=columns))
    assert refreshed(silver).problem is None
    assert silver.stored(NAME)["mark"].to_list() == [":x"]


def test_it_is_looked_at_on_its_schedule(tmp_path: Path, server: URL) -> None:
    silver = Silver(tmp_path, options=assets(server, every="10m"))
    refreshed(silver)
    run(server, "INSERT INTO assets VALUES (2, 'Bo', NULL, NULL, NULL, NULL)")
    assert not refreshed(silver).has_looked
    silver.now += timedelta(minutes=10)
    refreshed(silver)
    run(server, "DELETE FROM assets WHERE asset_id = 2")
    rows = silver.stored(NAME).sort("asset_id").select("asset_id", "version", "valid_from").rows()
    assert rows[1] == (2, 2, silver.now) and rows[0][1] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"table": "no_assets"},
        {"table": None, "query": "SELEKT 1"},
        {"table": None, "query": "SELECT asset_id FROM assets WHERE asset_id = 99"},
        {"columns": {**COLUMNS, "color": "VARCHAR"}},
        {"table": None, "query": "SELECT * FROM (SELECT * FROM assets UNION ALL SELECT * FROM assets) twice"},
    ],
    ids=str,
)
def test_problem_is_told_without_the_password(tmp_path: Path, server: URL, changes: dict[str, Any]) -> None:
    silver = Silver(tmp_path, options=assets(server))
    refreshed(silver)
    good = silver.stored(NAME)
    silver = Silver(tmp_path, options=assets(server, **changes))
    if "color" in str(changes):
        good = good.clear()
    problem = str(refreshed(silver).problem)
    assert server.get_backend_name() in problem and "\n" not in problem
    assert PASSWORD not in problem
    if not good.is_empty():
        assert silver.stored(NAME).equals(good)


@pytest.mark.parametrize("dialect", ["postgresql+psycopg", "mysql+pymysql"])
def test_server_that_is_down_or_silent(tmp_path: Path, dialect: str) -> None:
    url = URL.create(dialect, "secchi", PASSWORD, "127.0.0.1", free_port(), "plant")
    down = refreshed(Silver(tmp_path / "down", options=assets(url)))
    assert "127.0.0.1" in str(down.problem) and PASSWORD not in str(down.problem)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = url.set(port=silent.getsockname()[1])
        waited = refreshed(Silver(tmp_path / "silent", options=assets(url, timeout="200ms")))
    assert str(waited.problem).endswith("did not answer within 200ms")


def test_wrong_password_is_not_shown(tmp_path: Path, server: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    if server.password is None:
        pytest.skip("SQLite has no passwords")
    monkeypatch.setenv("PLANT_PASSWORD", "wr0ng-one")
    silver = Silver(tmp_path, options=assets(server))
    problem = str(refreshed(silver).problem)
    assert "secchi" in problem and "wr0ng-one" not in problem and PASSWORD not in problem
    marker = silver.context.lakehouse.head(silver.context.tables[NAME].stored).markers
    assert "wr0ng-one" not in json.dumps(marker) + repr(silver.context.config)


def test_sqlite_file_is_not_made(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "none.db"))
    assert "unable to open database file" in str(refreshed(Silver(tmp_path / "lake", options=assets(url))).problem)
    assert not (tmp_path / "none.db").exists()


def test_sqlite_file_is_beside_the_configuration(tmp_path: Path) -> None:
    found = parse_config(assets(URL.create("sqlite", database="plant.db")), folder=tmp_path).reference[0].url
    assert found == f"sqlite:///{tmp_path}/plant.db"


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("oracle+oracledb", "the driver oracledb is not installed; install oracledb"),
        ("sybil", "there is no such dialect: Can't load plugin: sqlalchemy.dialects:sybil"),
    ],
)
def test_missing_driver_is_told(tmp_path: Path, dialect: str, message: str) -> None:
    url = URL.create(dialect, "secchi", PASSWORD, "127.0.0.1", 1, "plant")
    assert message in str(refreshed(Silver(tmp_path, options=assets(url))).problem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": f"postgresql://secchi:{PASSWORD}@db/plant"}, "url must not hold a password; write password = {env"),
        ({"url": f"postgresql://db/plant?password={PASSWORD}"}, "url must not hold a password; write password = {env"),
        ({"url": f"secchi:{PASSWORD}"}, "url must be an SQLAlchemy URL like 'postgresql+psycopg://user@host/database'"),
        ({"password": PASSWORD}, 'password must not stand in the file; write {env = "NAME"}'),
        ({"query": "SELECT 1"}, "query is missing; it, or table, says what is read of url (not both)"),
        ({"table": None}, "query is missing; it, or table, says what is read of url"),
        ({"url": None}, "file is missing; it, or url with query or table, says where the rows are"),
        ({"url": None, "file": "a.csv", "password": None}, "table is of a url; file has none"),
        ({"format": "csv"}, "format is of a file; url has none"),
    ],
)
def test_mistake_is_named_without_the_password(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_config(assets(URL.create("postgresql", "secchi", PASSWORD, "db", 1, "plant"), **changes))
    assert message in str(error.value)
    assert PASSWORD not in f"{error.value} {error.value.__cause__}"
