"""The command line: what it prints, its exit codes, and that mistakes are one line."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from pipelines.cli import cli, main
from pipelines.connection import secchi_connection
from resources.errors import CommitConflictError, SchemaMismatchError
from tests.pipelines.plant import START, Plant, Reading

ROOT = Path(__file__).resolve().parents[2]
SILVER = "silver.sensor_readings"
HEAVY = ("dagster", "polars", "pyiceberg", "pyarrow", "duckdb", "pydantic", "rich", "sklearn", "sqlalchemy", "numpy")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("SECCHI_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    return invoke


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "secchi.toml"
    path.write_text('[lakehouse]\npath = "lake"\n')
    return path


def build(config: Path) -> Plant:
    """Thirty readings and two records that are none, carried through; ten more readings wait in landing."""
    made = Plant(config.parent / "lake")
    made.land([*(Reading(1, s, float(s)).payload for s in range(30)), b"\x1b[31m{", b"\xff\xfe"])
    made.drain()
    made.land(Reading(2, s, float(s)).payload for s in range(10))
    return made


@pytest.fixture
def plant(config: Path) -> Plant:
    """A plant of the test's own."""
    return build(config)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a plant that tests only look at."""
    path = tmp_path_factory.mktemp("still") / "secchi.toml"
    path.write_text('[lakehouse]\npath = "lake"\n')
    build(path)
    return path


def one_line(ran: Ran) -> str:
    assert ran.err.startswith("secchi: ") and ran.err.count("\n") == 1, ran.err
    return ran.err


# --- the whole ------------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, pipelines.cli as c; c.main(['--help']); print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "process" in done.stdout and not done.stderr


def test_module_runs_as_a_program(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipelines.cli", "--config", "absent.toml", "check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "secchi: absent.toml: No such file or directory; name the file with --config or SECCHI_CONFIG\n"
    )


def parts(command: click.Command) -> list[click.Command]:
    """A command and those below it."""
    return [command, *(command.commands.values() if isinstance(command, click.Group) else ())]


def test_every_command_and_option_is_documented() -> None:
    sections = re.split(r"^## ", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    documented = {s.splitlines()[0].strip("`"): s for s in sections[1:]}
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert [n for n in documented if n.startswith("secchi ")] == [f"secchi {n}" for n in names]
    for name in names:
        section = documented[f"secchi {name}"]
        assert f"$ secchi {name}" in section, f"{name}: no example"
        command = cli.get_command(context, name)
        assert command is not None and command.help
        for option in (
            o for each in parts(command) for p in each.params if isinstance(p, click.Option) for o in p.opts
        ):
            assert f"`{option}" in section, f"{name}: {option} is not documented"
        assert all(f"secchi {name} {part.name}" in section and part.help for part in parts(command)[1:])
    for parameter in cli.params:
        assert f"`{parameter.opts[0]}" in documented["Global options"]


# --- mistakes -------------------------------------------------------------------------------------------------------


def test_configuration_mistake_is_exit_2(run: Run, config: Path) -> None:
    config.write_text('[landing]\nsegment_age = "soon"\n')
    ran = run("--config", config, "status")
    assert ran.code == 2
    assert "landing.segment_age must be a duration" in one_line(ran)


def test_usage_mistakes_are_exit_2(run: Run) -> None:
    assert "no such command 'nothing'" in one_line(ran := run("nothing")).lower() and ran.code == 2
    assert "'secchi sql --help'" in one_line(ran := run("sql")) and ran.code == 2


def test_nothing_stored_yet(run: Run, config: Path) -> None:
    for command in (["tables"], ["sql", "select 1"], ["quarantine"], ["replay"], ["maintain"]):
        ran = run("--config", config, *command)
        assert ran.code == 1 and "no lakehouse is here yet" in one_line(ran)
    ran = run("--config", config, "status")
    assert ran.code == 0 and "never ran here" in ran.out and "Nothing is stored yet" in ran.out
    assert not (config.parent / "lake").exists()


@pytest.mark.parametrize(
    "error", [SchemaMismatchError("silver.x: two\nlines"), CommitConflictError("silver.x: two lines")]
)
def test_errors_of_ours_are_exit_1(run: Run, still: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr("pipelines.standing.extents", fail)
    ran = run("--config", still, "tables")
    assert (ran.code, ran.err) == (1, "secchi: silver.x: two lines\n")


def test_unexpected_error_says_how_to_see_more(
    run: Run, still: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("pipelines.standing.extents", fail)
    ran = run("--config", still, "tables")
    assert ran.code == 1
    assert one_line(ran) == "secchi: ZeroDivisionError: by zero; run again with --debug for the traceback\n"
    assert main(["--debug", "--config", str(still), "tables"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_interrupt_is_exit_130(run: Run, still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.standing.extents", interrupt)
    ran = run("--config", still, "tables")
    assert ran.code == 130 and not ran.err.strip()


# --- commands -------------------------------------------------------------------------------------------------------


def test_check_names_what_is_collected_and_no_secret(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(
        '[[mqtt]]\nname = "north"\nport = 1884\ntopics = ["plant/#"]\nusername = "u"\npassword = {env = "NORTH"}\n'
        '[snmp.modules.sys]\nget = ["1.3.6.1.2.1.1.3.0"]\ninterval = "10s"\n'
        '[[snmp.targets]]\nhost = "10.0.0.7"\nmodules = ["sys"]\n'
    )
    monkeypatch.delenv("NORTH", raising=False)
    ran = run("--config", config, "check")
    assert ran.code == 2 and one_line(ran) == (
        f"secchi: {config}: mqtt[0].password: the environment variable NORTH is not set\n"
    )
    monkeypatch.setenv("NORTH", "s3cr3t")
    ran = run("--config", config, "check")
    assert ran.code == 0 and "s3cr3t" not in ran.out + ran.err
    for told in ("north (127.0.0.1:1884)", "plant/#", "from variable NORTH", "10.0.0.7:161", "10 s", "is valid"):
        assert told in ran.out
    assert not (config.parent / "data").exists()


@pytest.mark.parametrize(
    ("tls", "told"),
    [
        ('{ca = "nowhere.pem"}', "ca: cannot read nowhere.pem as PEM certificates: No such file or directory"),
        ('{certificate = "us.pem"}', "certificate: cannot use us.pem with key in the same file"),
        ('{certificate = "us.pem", key_password = {env = "KEY"}}', "key_password: the environment variable KEY is not"),
    ],
)
def test_check_names_a_certificate_that_cannot_be_used(run: Run, config: Path, tls: str, told: str) -> None:
    config.write_text(f'[[mqtt]]\nname = "north"\ntopics = ["plant/#"]\ntls = {tls}\n')
    ran = run("--config", config, "check")
    assert ran.code == 2 and one_line(ran).startswith(f"secchi: {config}: mqtt[0].tls.{told}")


def test_column_that_is_gone_is_told_by_check_and_process(run: Run, config: Path) -> None:
    made = config.read_text() + '[[calculation]]\nname = "press_1m"\nfrom = "silver.sensor_readings"\n'
    made += 'by = ["site_id", "device_id", "sensor_id", "unit"]\nwindow = {kind = "tumbling", size = "1m"}\n'
    config.write_text(made + 'aggregate = {mean = "mean(measurement)", p95 = "quantile(measurement, 0.95)"}\n')
    assert run("--config", config, "process").code == 0
    assert run("--config", config, "check").err == ""
    config.write_text(made + 'aggregate = {mean = "mean(measurement)"}\n')
    told = (
        "gold.press_1m: stored column 'p95' is double, no longer declared; "
        "declare it as it is stored, or give the table another name\n"
    )
    ran = run("--config", config, "check")
    assert (ran.code, ran.err) == (0, f"secchi: warning: {told}")
    ran = run("--config", config, "process")
    assert (ran.code, ran.err) == (1, f"secchi: {told}")


def test_collect_without_anything_to_collect(run: Run, config: Path) -> None:
    ran = run("--config", config, "collect")
    assert ran.code == 2 and "nothing to collect" in one_line(ran)


def test_reload_without_collectors(run: Run, config: Path) -> None:
    ran = run("--config", config, "reload")
    assert ran.code == 1 and "nothing runs for" in one_line(ran)


def test_process_carries_what_waits(run: Run, config: Path, plant: Plant) -> None:
    ran = run("--config", config, "process")
    assert ran.code == 0 and ran.err.startswith("model sensor_windows: ") and ran.err.count("\n") == 1
    silver = next(line for line in ran.out.splitlines() if SILVER in line)
    assert [cell.strip() for cell in silver.split("│")[2:5]] == ["10", "0", "0"]
    assert plant.table(SILVER).height == 40
    again = run("--config", config, "process")
    assert again.code == 0 and "Nothing was waiting." in again.out


def test_process_tells_which_table_failed(
    run: Run, config: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import micro_batch

    def fail(*_: object) -> None:
        raise SchemaMismatchError("cannot be written")

    monkeypatch.setitem(micro_batch._STEPS, "decode", fail)
    ran = run("--config", config, "process")
    assert ran.code == 1
    assert f"{SILVER}: cannot be written" in one_line(ran)
    assert "bronze.mqtt_messages" in ran.out


def test_status_of_a_plant(run: Run, config: Path, plant: Plant) -> None:
    status = plant.folder / "status" / "collectors.json"
    status.parent.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    told: dict[str, Any] = {
        "pid": os.getpid(),
        "started_at": START.isoformat(),
        "updated_at": START.isoformat(),
        "mqtt": {"north": {"connected": True, "received": 42, "durable": 41, "reconnects": 2, "last_error": None}},
        "snmp": {
            "10.0.0.7:161": {
                "polls": 9,
                "failed": 3,
                "timeouts": 4,
                "varbinds": 7,
                "failing": ["sys"],
                "last_error": "x",
            }
        },
        "landing": {"mqtt_messages": {"received": 42, "durable": 41, "writable": False}},
    }
    status.write_text(json.dumps(told))
    ran = run("--config", config, "status")
    assert ran.code == 0
    for line in (
        r"running \(pid \d+, since 2026-03-01T12:00:00Z\), but silent for",
        r"mqtt north +│ connected +│ +42 │ +41 │ 2 reconnects",
        r"snmp 10.0.0.7:161 +│ down: sys +│ +7 │ +│ 3 of 9 polls, 4 timeouts +│ x",
        r"Landing of mqtt_messages takes no records now",
        r"│ mqtt_messages +│ +1 │",
        r"bronze.mqtt_messages +│ +32 │.*│ 1 segment +│",
        r"silver.sensor_readings +│ +30 │.*│ no +│",
        r"silver.sensor_readings +│ invalid_json +│ +[12] │",
    ):
        assert re.search(line, ran.out), line
    up = {"polls": 2, "failed": 0, "timeouts": 0, "varbinds": 5, "failing": [], "last_error": None}
    many = {f"10.0.1.{n}:161": up for n in range(30)}
    status.write_text(json.dumps({**told, "snmp": {**many, **told["snmp"]}}))
    ran = run("--config", config, "status")
    assert re.search(r"snmp 10.0.0.7:161 +│ down: sys .*\n.*snmp 10.0.1.0:161 +│ up ", ran.out), "the failing one first"
    assert re.search(r"snmp, 11 more targets +│ 0 down +│ +55 │ +│ 0 of 22 polls", ran.out)
    status.write_text(json.dumps({**told, "pid": dead.pid}))
    ran = run("--config", config, "status")
    assert "not running" in ran.out and re.search("mqtt north +│ stopped", ran.out)


def test_tables_from_metadata(run: Run, still: Path) -> None:
    ran = run("--config", still, "tables", "--format", "json")
    rows = {row["table"]: row for row in json.loads(ran.out)}
    silver = rows[SILVER]
    assert silver["rows"] == 30 and silver["files"] == 1 and silver["bytes"] > 0
    assert silver["newest"] == (START + timedelta(seconds=29)).isoformat()
    assert silver["lag_seconds"] > 0
    assert rows["silver.snmp_samples"]["rows"] == 0 and rows["silver.snmp_samples"]["newest"] is None
    shown = run("--config", still, "tables")
    assert re.search(rf"{SILVER} +│ +30 │ +1 │ .*KiB +│ 2026-03-01 12:00:29Z", shown.out)


def test_sql_formats(run: Run, still: Path) -> None:
    query = (
        "SELECT observed_at, measurement, 'a,b' AS text, '\\xFF'::BLOB AS raw, 1.10::DECIMAL(4,2) AS exact, "
        "12345678901234567.89::DECIMAL(20,2) AS wide, {'k': [1, NULL]} AS nested, NULL AS nothing, "
        f"'NaN'::DOUBLE AS nan, true AS yes, 1 AS same, 2 AS same FROM {SILVER} ORDER BY observed_at LIMIT 2"
    )
    ran = run("--config", still, "sql", query, "--format", "json")
    assert json.loads(ran.out)[0] == {
        "observed_at": "2026-03-01T12:00:00+00:00",
        "measurement": 0.0,
        "text": "a,b",
        "raw": "ff",
        "exact": 1.1,
        "wide": "12345678901234567.89",
        "nested": {"k": [1, None]},
        "nothing": None,
        "nan": None,
        "yes": True,
        "same": 1,
        "same_1": 2,
    }
    ran = run("--config", still, "sql", query, "--format", "csv")
    header, first, _ = csv.reader(io.StringIO(ran.out))
    assert header[:2] == ["observed_at", "measurement"]
    assert first == [
        *(
            "2026-03-01T12:00:00+00:00",
            "0.0",
            "a,b",
            "ff",
            "1.1",
            "12345678901234567.89",
            '{"k": [1, null]}',
            "",
            "nan",
        ),
        *("true", "1", "2"),
    ]
    ran = run("--config", still, "sql", query)
    assert "2026-03-01 12:00:00Z" in ran.out and "12345678901234567.89" in ran.out
    assert run("--config", still, "sql", "SELECT 1 WHERE false", "--format", "json").out == "[]\n"


def test_sql_limit_is_told(run: Run, still: Path) -> None:
    ran = run("--config", still, "sql", "FROM range(5)", "--format", "csv", "--limit", "3")
    assert ran.out.split() == ["range", "0", "1", "2"]
    assert "only the first 3 rows" in one_line(ran)
    ran = run("--config", still, "sql", "FROM range(3)", "--format", "csv", "--limit", "3")
    assert ran.out.split() == ["range", "0", "1", "2"] and not ran.err
    ran = run("--config", still, "sql", "FROM range(25000)", "--format", "csv")
    assert ran.out.count("\n") == 25001 and not ran.err
    ran = run("--config", still, "sql", "FROM range(1001)")
    assert "│  999 │" in ran.out.replace("   999", "  999") and "only the first 1000 rows" in ran.err


def test_sql_shows_wide_rows_one_below_the_other(run: Run, still: Path) -> None:
    values = ", ".join(f"{n} AS a_column_{n}" for n in range(20))
    lines = run(
        "--config", still, "sql", f"SELECT {values} UNION ALL SELECT {values.replace('7 AS', '8 AS')}"
    ).out.splitlines()
    assert [line.split("│")[1].split() for line in lines if "a_column_7 " in line] == [["a_column_7"]] * 2
    assert [line.split("│")[2].split() for line in lines if "a_column_7 " in line] == [["7"], ["8"]]
    assert sum("row 1" in line or "row 2" in line for line in lines) == 2


def test_sql_explains_what_reads(run: Run, still: Path) -> None:
    for statement in ("EXPLAIN FROM ops.batches", "EXPLAIN ANALYZE SELECT 1", "explain (format json) select 1"):
        assert run("--config", still, "sql", statement).code == 0


def test_sql_from_standard_input(run: Run, still: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"SELECT count(*) AS n\nFROM {SILVER}; -- all\n"))
    assert run("--config", still, "sql", "-", "--format", "csv").out == "n\n30\n"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SELECT nope FROM ops.batches", 'Referenced column "nope" not found'),
        ("FROM silver.sensor_reading", "sensor_reading does not exist; did you mean silver.sensor_readings?"),
        ("FROM sensor_windows_1m", "sensor_windows_1m does not exist; did you mean gold.sensor_windows_1m?"),
        ("FROM gould.sensor_windows_1m", "did you mean gold.sensor_windows_1m?"),
        ("FROM zzz", "zzz does not exist; 'secchi tables' lists them"),
        ("FROM gold.threshold_events", "does not exist; gold.threshold_events comes with the first [[threshold]]"),
        ("COPY (SELECT 1) TO 'x.csv'", "COPY is refused: the lakehouse is read-only"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'", "COPY is refused"),
        ("EXPLAIN ANALYZE DROP VIEW ops.batches", "DROP is refused"),
        ("/* a */ explain -- b\n (ANALYZE) DROP VIEW ops.batches", "Parser Error"),
        ("EXPLAIN EXPLAIN ANALYZE DROP VIEW ops.batches", "error"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is refused"),
        ("SELECT 1; SELECT 2", "one SQL statement is expected, got 2"),
        (" ", "one SQL statement is expected, got 0"),
    ],
)
def test_sql_mistakes_are_one_line(run: Run, still: Path, statement: str, message: str) -> None:
    ran = run("--config", still, "sql", statement)
    assert ran.code == 1 and not ran.out
    assert message in one_line(ran)


def test_quarantine_counts_then_records(run: Run, still: Path) -> None:
    ran = run("--config", still, "quarantine")
    assert ran.code == 0 and ran.out.startswith("In quarantine: 2 records.")
    assert "[31m{" not in ran.out.replace("\\x1b[31m{", ""), "control characters reach the terminal"
    shown = run("--config", still, "quarantine", "--show-raw", "--stage", SILVER)
    assert "\\x1b[31m{" in shown.out and "fffe" in shown.out
    assert "Nothing waits" in run("--config", still, "quarantine", "--reason", "key_conflict").out
    assert "The newest" not in run("--config", still, "quarantine", "--limit", "0").out
    assert "The newest 1 of 2; --limit shows more:" in run("--config", still, "quarantine", "--limit", "1").out


def test_replay_is_taken_by_the_next_batch(run: Run, config: Path, plant: Plant) -> None:
    ran = run("--config", config, "replay", "--table", SILVER, "--reason", "nothing_like_that")
    assert ran.code == 0 and "Nothing that can be replayed" in ran.out
    ran = run("--config", config, "replay")
    assert ran.code == 0
    assert re.search(rf"^{SILVER}: asked for 2 records again \(request [0-9a-f-]{{36}}\); the table takes", ran.out)
    assert run("--config", config, "replay", "--reason", "invalid_json").code == 0
    assert plant.table("ops.requests").height == 2
    assert re.search(rf"{SILVER} .*2 requests", run("--config", config, "status").out)
    assert run("--config", config, "process").code == 0
    kept = plant.table("quarantine.records")
    assert kept.height == 2, "what fails again is there once"
    assert "requests" not in run("--config", config, "status").out


def test_replay_of_a_table_that_cannot(run: Run, still: Path) -> None:
    ran = run("--config", still, "replay", "--table", "gold.sensor_windows_1m")
    assert ran.code == 2 and SILVER in one_line(ran)


def test_maintain_reports_tables(run: Run, config: Path, plant: Plant) -> None:
    ran = run("--config", config, "maintain")
    assert ran.code == 0 and not ran.err
    assert SILVER in ran.out and "snapshots expired" in ran.out


def test_warnings_of_dependencies_do_not_reach_the_user(run: Run, still: Path) -> None:
    run("--config", still, "tables")
    logging.getLogger("pyiceberg.io").warning("not ours")
    logging.getLogger("py.warnings").warning("not ours")
    logging.getLogger("pipelines.micro_batch").warning("ours,\nin one line")
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    told = handler.stream.getvalue()
    assert "not ours" not in told and told.count("\n") == 1 and "ours, in one line" in told


def test_connection_for_notebooks(still: Path) -> None:
    with secchi_connection(still) as connection:
        frame = connection.sql(f"FROM {SILVER} ORDER BY observed_at").pl()
        assert frame["measurement"].to_list() == [float(s) for s in range(30)]
        assert connection.sql(f"SELECT count(*) AS n FROM {SILVER}").df()["n"].to_list() == [30]
