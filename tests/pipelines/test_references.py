"""Side inputs through the tables: refreshed when due, the last good version stays when the source is broken."""

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.catalog import load_tables
from pipelines.config import parse_config
from pipelines.context import Context, TableResult
from pipelines.dagster_assets import micro_batch_assets
from pipelines.micro_batch import is_behind
from pipelines.micro_batch_run import asset_key
from pipelines.reference_refresh import is_due, marker_of, problem_in, run_refresh, version_in
from pipelines.reference_step import read_reference
from pipelines.standing import backlog
from resources.errors import ConfigurationError, SourceUnavailableError
from tests.pipelines.event_time import CrashError, Silver, crash_at

NAME = "reference.owners"
OWNERS = {"key": ["device_id"], "columns": {"device_id": "BIGINT", "owner": "VARCHAR", "floor": "DOUBLE"}}


def owners(path: Path, **changes: Any) -> dict[str, Any]:
    told = {"name": "owners", "file": str(path), **OWNERS, **changes}
    return {"reference": [{key: value for key, value in told.items() if value is not None}]}


def refreshed(silver: Silver) -> TableResult:
    return run_refresh(silver.context, silver.context.tables[NAME])


def content(silver: Silver) -> list[tuple[Any, ...]]:
    return silver.stored(NAME).sort("device_id", "valid_from").select("device_id", "owner", "floor", "version").rows()


def rewrite(file: Path, text: str) -> None:
    """As an editor does, at another time than before."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "owners.csv"
    rewrite(file, "device_id,owner,floor,paint\n1,Ann,2,red\n2,Bo,,blue\n")
    return file


@pytest.mark.parametrize("form", ["csv", "parquet", "json", "ndjson"])
def test_every_format_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    rows = [{"device_id": 1, "owner": "Ann", "floor": 2.0}, {"device_id": 2, "owner": "Bo", "floor": None}]
    file, frame = tmp_path / f"owners.{form}", pl.DataFrame(rows)
    if form == "csv":
        frame.write_csv(file)
    elif form == "parquet":
        frame.write_parquet(file)
    else:
        file.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    silver = Silver(tmp_path / "lake", options=owners(file))
    assert refreshed(silver).rows == 2
    assert content(silver) == [(1, "Ann", 2.0, 1), (2, "Bo", None, 1)]


def test_file_is_taken_again_when_it_changes(tmp_path: Path, file: Path) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file))
    assert is_behind(silver.context) == f"the side input of {NAME} is due"
    assert refreshed(silver).has_looked and not refreshed(silver).has_looked
    rewrite(file, "device_id,owner,floor\n1,Ann,2\n2,Cy,\n")
    silver.now += timedelta(hours=1)
    assert is_due(silver.context, silver.context.tables[NAME])
    refreshed(silver)
    assert content(silver) == [(1, "Ann", 2.0, 1), (2, "Bo", None, 1), (2, "Cy", None, 2)]
    ended = silver.stored(NAME).filter(pl.col("owner") == "Bo")["valid_to"].item()
    assert ended == silver.now


def test_file_that_only_was_touched_is_no_version(tmp_path: Path, file: Path) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file))
    refreshed(silver)
    rewrite(file, file.read_text())
    assert refreshed(silver).has_looked
    assert version_in(marker_of(silver.context, silver.context.tables[NAME])) == 1


def test_schedule_looks_again(tmp_path: Path, file: Path) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file, every="10m"))
    refreshed(silver)
    silver.now += timedelta(minutes=9)
    assert not refreshed(silver).has_looked
    silver.now += timedelta(minutes=1)
    assert refreshed(silver).has_looked


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "owners.csv: No such file or directory"),
        ("device_id,owner,floor\n", "owners.csv: holds no row"),
        ("device_id,owner\n1,Ann\n", "owners.csv: there is no column 'floor'; there are device_id, owner"),
        ("device_id,owner,floor\n1,Ann,2\n1,Bo,2\n", "owners.csv: device_id = '1' stands in several rows"),
        ("device_id,owner,floor\n1,Ann,high\n", "owners.csv: column 'floor': 'high' in row 1 is no number"),
        ('device_id,owner,floor\n1,"Ann,2\n', "owners.csv: is no csv that can be read"),
    ],
)
def test_broken_file_leaves_the_last_version(tmp_path: Path, file: Path, text: str | None, problem: str) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file))
    refreshed(silver)
    good, before = content(silver), file.read_text()
    if text is None:
        file.unlink()
    else:
        rewrite(file, text)
    result = refreshed(silver)
    assert result.error is None and problem in str(result.problem)
    assert content(silver) == good
    assert problem in str(problem_in(marker_of(silver.context, silver.context.tables[NAME])))
    assert not refreshed(silver).has_looked, "a file that did not change is not read again"
    rewrite(file, before.replace("Bo", "Cy"))
    assert refreshed(silver).problem is None
    assert content(silver) != good


def test_changed_declaration_is_looked_at_again(tmp_path: Path, file: Path) -> None:
    refreshed(Silver(tmp_path / "lake", options=owners(file)))
    more = {**OWNERS["columns"], "paint": "VARCHAR"}  # type: ignore[dict-item]
    silver = Silver(tmp_path / "lake", options=owners(file, columns=more))
    refreshed(silver)
    newest = silver.stored(NAME).filter(pl.col("valid_to").is_null())
    assert sorted(newest["paint"].to_list()) == ["blue", "red"]
    other = Silver(tmp_path / "lake", options=owners(file, columns=more, key=["owner"]))
    assert "key is ['owner'], but the stored versions have ['device_id']" in str(refreshed(other).problem)


def test_row_beyond_the_bounds_of_a_column_is_told(tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    rewrite(file, "site_id,name,region,ranking_score,latitude,longitude,time_zone\n101,Mill,north,1,123,4,+02:00\n")
    silver = Silver(tmp_path / "lake", options={"reference": [{"name": "sites", "file": str(file)}]})
    result = run_refresh(silver.context, silver.context.tables["reference.sites"])
    assert "1 of 1 rows break the contract: " in str(result.problem) and "the maximum is 90" in str(result.problem)


@pytest.mark.parametrize("is_committed", [False, True])
def test_crash_leaves_one_version(tmp_path: Path, file: Path, is_committed: bool) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file))
    refreshed(silver)
    rewrite(file, "device_id,owner,floor\n1,Ann,2\n2,Cy,\n")
    silver.now += timedelta(hours=1)
    crash_at(silver.context.lakehouse, 1, is_committed=is_committed)
    with pytest.raises(CrashError):
        refreshed(silver)
    silver.context = silver.open()
    refreshed(silver)
    assert content(silver) == [(1, "Ann", 2.0, 1), (2, "Bo", None, 1), (2, "Cy", None, 2)]


def test_check_of_the_table_fails_with_the_reason(tmp_path: Path, file: Path) -> None:
    config = parse_config(
        {"lakehouse": {"path": str(tmp_path / "lake")}, "micro_batch": {"duration": "0s"}, **owners(file)}
    )
    asset = micro_batch_assets(config, load_tables(declared=config.declared))
    with dg.DagsterInstance.ephemeral() as instance:

        def check() -> dg.AssetCheckEvaluation:
            result = dg.materialize([asset], selection=[asset_key(NAME)], instance=instance)
            (found,) = result.get_asset_check_evaluations()
            return found

        assert check().passed
        rewrite(file, "device_id,owner\n1,Ann\n")
        for _ in range(2):  # the second run does not look again
            broken = check()
            assert not broken.passed and broken.severity == dg.AssetCheckSeverity.ERROR
            assert "there is no column 'floor'" in str(broken.description)
            assert "version 1 goes on serving" in str(broken.description)


def test_status_tells_the_problem(tmp_path: Path, file: Path) -> None:
    silver = Silver(tmp_path / "lake", options=owners(file))
    refreshed(silver)
    assert backlog(silver.context)[NAME] is None
    file.unlink()
    refreshed(silver)
    assert "owners.csv: No such file" in str(backlog(silver.context)[NAME])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": None}, "reference[0] file is missing; it, or url with query"),
        ({"files": "x.csv"}, "reference[0].files is not a known key; did you mean file?"),
        ({"file": "owners.txt"}, "format is missing: 'csv', 'parquet', 'json' or 'ndjson'; the name 'owners.txt' does"),
        ({"format": "xml"}, "reference[0].format must be 'csv', 'parquet', 'json' or 'ndjson', got 'xml'"),
        ({"valid_to": "until"}, "valid_from is missing: valid_to tells the end of what starts there"),
        ({"every": "0s"}, "reference[0].every must be more than 0 s"),
    ],
)
def test_mistake_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_config(owners(Path("owners.csv"), **changes))
    assert message in str(error.value)


def test_reader_of_a_source_that_never_was_good_waits(tmp_path: Path) -> None:
    silver = Silver(tmp_path / "lake", options=owners(tmp_path / "none.csv"))
    context: Context = silver.context
    refreshed(silver)
    with pytest.raises(SourceUnavailableError, match=r"reference.owners: has no version yet: .*none.csv: No such file"):
        read_reference(context, context.tables[NAME])
