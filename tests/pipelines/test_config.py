"""secchi.toml: what is accepted, and that a mistake names file, key, value and what is right."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.catalog import load_tables
from pipelines.cli import main
from pipelines.config import CONFIG_VARIABLE, Config, load_config, parse_config
from pipelines.context import check_names, open_context
from pipelines.settings.fields import Secret
from resources.durations import parse_duration, spelled
from resources.errors import ConfigurationError

WHOLE = """
[lakehouse]
path = "lake"
[landing]
segment-bytes = "4 MiB"
segment_age = "500ms"
[[mqtt]]
name = "north"
host = "broker.example.net"
topics = ["factory_iot/north/#"]
password = {env = "NORTH_PASSWORD"}
[snmp.auths.lab]
community = {file = "lab.txt"}
[snmp.modules.system]
get = [".1.3.6.1.2.1.1.3.0"]
interval = "1m30s"
[[snmp.targets]]
host = "fe80::1"
auth = "lab"
modules = ["system"]
[time]
earliest = 2010-01-01
[maintenance]
retention = {"silver.sensor_readings" = "30d"}
"""


def parsed(text: str) -> Config:
    return parse_config(tomllib.loads(text))


def mistake(text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        parsed(text)
    told = str(error.value)
    assert told.startswith("secchi.toml: ") and "\n" not in told
    return told.removeprefix("secchi.toml: ")


def test_whole_file() -> None:
    config = parsed(WHOLE)
    assert config.landing.segment_bytes == 4 * 2**20
    assert config.landing.segment_age == timedelta(milliseconds=500)
    assert config.snmp.modules["system"].interval == timedelta(seconds=90)
    assert config.snmp.targets[0].device_id == "[fe80::1]:161"
    assert config.maintenance.retention == {"silver.sensor_readings": timedelta(days=30)}
    assert config.mqtt[0].port == 1883


@pytest.mark.parametrize("text", ["2010-01-01", "2010-01-01T00:00:00", "2010-01-01T02:00:00+02:00", '"2010-01-01"'])
def test_time_without_an_offset_is_utc(text: str) -> None:
    """It is compared with times that have one."""
    assert parsed(f"[time]\nearliest = {text}").time.earliest == datetime(2010, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lakehous]", "lakehous is not a known key; did you mean lakehouse?"),
        ('[lakehouse]\nplace = "x"', "lakehouse.place is not a known key; known are path"),
        ("[[mqtt]]\nname = 'a'\ntopic = ['t']", "mqtt[0].topic is not a known key; did you mean topics?"),
        ("[snmp.modules.m]\nwalks = []", "snmp.modules.m.walks is not a known key; did you mean walk?"),
        ("[ml]\nschedule = 'daily'", "ml.schedule must be a cron expression like '*/30 * * * *'"),
        ("[quality]\nschedule = '61 * * * *'", "minute must be from 0 to 59, got '61 * * * *'"),
        ("[maintenance]\nschedule = 5", "maintenance.schedule must be a valid string, got 5"),
        (
            "[maintenance]\nretention = '30d'",
            'retention = {"bronze.mqtt_messages" = "30d", "silver.sensor_readings" = "365d"}',
        ),
        ("[maintenance]\nretention = '30d'", "maintenance.retention must tell how long of each table: "),
        ("[mqtt]\nname = 'a'", "mqtt may stand several times; write [[mqtt]] in double brackets"),
        ("[[landing]]", "landing stands once; write [landing] in single brackets"),
        ("landing = 5", "landing must be a table like {name = value}, got 5"),
        ("[[mqtt]]\nname = 'a'\ntopics = 't'", "mqtt[0].topics must be a list like ['t'], got 't'"),
        ("[[mqtt]]\nname = 'a'\ntopics = {t = 1}", "mqtt[0].topics must be a list like [{'t': 1}], got {'t': 1}"),
        ("[ml]\nseed = -1", "ml.seed must be greater than or equal to 0, got -1"),
        ("[ml]\nseed = 4294967296", "ml.seed must be less than or equal to 4294967295, got 4294967296"),
        (
            "[[mqtt]]\nname = 'a'\ntopics = ['t']\nkeepalive = '1d'",
            "mqtt[0].keepalive must be from 1 s to 65535 s, got",
        ),
        (
            "[[mqtt]]\nname = 'a'\ntopics = ['t']\nkeepalive = '100ms'",
            "mqtt[0].keepalive must be from 1 s to 65535 s, got",
        ),
        (
            "[[mqtt]]\nname = 'a'\ntopics = ['t']\nreconnect_min = '2m'",
            "mqtt[0] has reconnect_min = 120 s, which must not be more than reconnect_max = 60 s",
        ),
        (
            "[ml]\nmax_windows = 499",
            "ml has min_windows = 500, which must not be more than max_windows = 499",
        ),
        (
            "[snmp.modules.m]\nget = ['1.3']\n" + 2 * "[[snmp.targets]]\nhost = 'h'\nmodules = ['m']\n",
            "snmp targets[1] is h:161, as targets[0] is; name all its modules in one",
        ),
        ("[[mqtt]]\nname = 'a'", "mqtt[0].topics is missing"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nport = 70000", "mqtt[0].port "),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nqos = 3", "mqtt[0].qos "),
        ("[[mqtt]]\nname = 'a b'\ntopics = ['t']", "mqtt[0].name "),
        ("[[mqtt]]\nname = 'a'\ntopics = []", "mqtt[0].topics "),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t', 'a#']", "mqtt[0].topics[1] has '#' that is not the whole last level"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nsession_expiry = '1h'", "mqtt[0] session_expiry needs protocol = '5'"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nstate_topic = 'a/+'", "state_topic must be a topic without wildcards"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\npath = 'mqtt'", "mqtt[0].path must start with '/'"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\ntls = {key = 'k'}", "mqtt[0].tls has a key without a certificate"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\ntls = {verify = false}", "mqtt[0].tls.verify is not a known key"),
        (
            "".join(f"[[mqtt]]\nname = '{name}'\ntopics = ['t']\nclient_id = 'c'\n" for name in "ab"),
            "has client_id 'c' twice for 127.0.0.1:1883",
        ),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\n[[mqtt]]\nname = 'a'\ntopics = ['t']", "names two brokers 'a'"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\npassword = 'hunter2'", "must not stand in the file"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\npassword = {}", "mqtt[0].password must be {env"),
        ("[landing]\nsegment_bytes = 'much'", "landing.segment_bytes must be a size like '16 MiB'"),
        ("[landing]\nsegment_bytes = 0", "landing.segment_bytes "),
        ("[time]\nskew = 'soon'", "time.skew must be a duration like '30s'"),
        ("[time]\nidle = -5", "time.idle must be from 0 s to 100 years"),
        ("[maintenance]\nsweep_after = '50000d'", "maintenance.sweep_after must be from 0 s to 100 years"),
        ("[time]\nearliest = 'once'", "time.earliest "),
        ("[ml]\nfalse_alarm_rate = 1.5", "ml.false_alarm_rate "),
        ("[maintenance]\ncompact_files = 1", "maintenance.compact_files "),
        ("[snmp.modules.m]\nget = ['sysUpTime.0']", "an OID is numeric, like '1.3.6.1.2.1.1.3.0'"),
        ("[snmp.modules.m]\ninterval = '5s'", "must name OIDs in get or walk"),
        ("[[snmp.targets]]\nhost = 'h'\nmodules = ['m']", "targets[0].modules must be of ['apc-pdu', "),
        ("[[snmp.targets]]\nhost = 'h'\n[[snmp.targets]]\nhost = 'h'", "targets[1] is h:161, as targets[0] is"),
        ("[[snmp.targets]]\nhost = 'h'\ncontext = 'c'", "targets[0].context is of version '3'"),
        ("[snmp.auths.a]\nversion = '4'", "snmp.auths.a.version "),
        ("[snmp.auths.a]\nversion = '3'", "snmp.auths.a has version '3', which takes user, and no community"),
        ("[snmp.auths.a]\nuser = 'u'", "snmp.auths.a has user, which is of version '3', and version '2c'"),
        (
            "[snmp.auths.a]\nversion = '3'\nuser = 'u'\nauth_protocol = 'SHA'",
            "must have both auth_protocol and auth_password",
        ),
        (
            "[snmp.auths.a]\nversion = '3'\nuser = 'u'\npriv_protocol = 'AES'\npriv_password = {env = 'P'}",
            "priv_protocol without auth_protocol",
        ),
        ("[snmp.auths.a]\nversion = '3'\nuser = 'u'\nauth_protocol = 'SHA-3'", "auth_protocol "),
        ("[time]\nidle = 1\n[landing]\nsegment-bytes = 1\nsegment_bytes = 1", "which is the same option twice"),
    ],
)
def test_mistake_names_key_and_what_is_accepted(text: str, message: str) -> None:
    assert message in mistake(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nport = 70000", "70000"),
        ("[[mqtt]]\nname = 'a'\ntopics = ['t']\nqos = 3", "3"),
        ("[ml]\nfalse_alarm_rate = 1.5", "1.5"),
        ("[landing]\nsegment_bytes = -5", "-5"),
    ],
)
def test_mistake_tells_the_value(text: str, value: str) -> None:
    assert mistake(text).endswith(f"got {value}")


def test_long_value_is_cut() -> None:
    """Of a text of a megabyte, a line is enough to know it by."""
    long = "x" * 1_000_000
    for text in (f"[landing]\n{long} = 1", f"[ml]\nschedule = '{long}'", f"[ml]\nseed = '{long}'"):
        assert len(mistake(text)) < 500


def test_further_mistakes_are_counted() -> None:
    assert mistake("[ml]\ntrees = 0\nmin_windows = 1\nmax_windows = 1").endswith("(and 2 more)")


def test_secret_is_never_shown() -> None:
    """Neither one that stands in the file by mistake, nor one that was read."""
    assert "hunter2" not in mistake("[[mqtt]]\nname = 'a'\ntopics = ['t']\npassword = 'hunter2'")
    assert "4711" not in mistake("[[mqtt]]\nname = 'a'\ntopics = ['t']\npassword = 4711")


def test_secret_is_read_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORTH_PASSWORD", "hunter2")
    (tmp_path / "secret").write_text("s3cret\n")
    by_name, by_file = Secret(env="NORTH_PASSWORD"), Secret(file=tmp_path / "secret")
    assert (by_name.reveal(), by_file.reveal()) == ("hunter2", "s3cret")
    assert "hunter2" not in repr(by_name) and "s3cret" not in repr(by_file)


@pytest.mark.parametrize("secret", [Secret(env="SECCHI_NOT_SET"), Secret(file=Path("not-there"))])
def test_secret_that_is_not_there(secret: Secret) -> None:
    with pytest.raises(ConfigurationError, match=r"SECCHI_NOT_SET is not set|cannot read not-there"):
        secret.reveal()


# --- the file ----------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "secchi.toml").write_text(WHOLE)
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("plant/secchi.toml"))
    assert config.lakehouse.path == tmp_path / "plant" / "lake"
    assert config.landing_path == tmp_path / "plant" / "lake" / "landing"


def test_file_is_the_named_one_then_that_of_the_environment_then_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    assert load_config() == Config()
    for name in ("secchi.toml", "other.toml", "named.toml"):
        (tmp_path / name).write_text(f"[lakehouse]\npath = '{name}.d'\n")
    assert load_config().lakehouse.path.name == "secchi.toml.d"
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "other.toml"))
    assert load_config().lakehouse.path.name == "other.toml.d"
    assert load_config(tmp_path / "named.toml").lakehouse.path.name == "named.toml.d"
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigurationError, match=r"gone\.toml: No such file or directory; name the file with --config"):
        load_config()


@pytest.mark.parametrize("content", [b"[lakehouse\n", b"a = \xff\n", b"a = 1\na = 2\n"])
def test_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secchi.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")


# --- what needs the tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["silver.readings", "quarantine.records"])
def test_retention_is_of_a_table_with_a_time(tmp_path: Path, name: str) -> None:
    """Else rows that somebody wants gone would be kept, and nothing would tell."""
    config = parsed(f'[lakehouse]\npath = "{tmp_path}"\n[maintenance]\nretention = {{"{name}" = "1d"}}')
    with pytest.raises(ConfigurationError) as error:
        open_context(config)
    assert str(error.value).startswith("secchi.toml: maintenance.retention: must name one of ['bronze.mqtt_messages', ")
    assert str(error.value).endswith(f"got {name!r}")
    check_names(parsed(WHOLE), load_tables())


def test_mistake_in_a_calculation_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plant.toml"
    path.write_text("[[calculation]]\nname = 'x_1m'\nsize = '1m'\n")
    with pytest.raises(ConfigurationError) as error:
        open_context(load_config(path))
    assert str(error.value).startswith(f"{path}: calculation 'x_1m': size is not a known key")
    assert main(["--config", str(path), "check"]) == 2
    assert capsys.readouterr().err == f"secchi: {error.value}\n"


# --- durations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1m30s", 90), ("1h 30m", 5400), ("250ms", 0.25), ("5us", 5e-6), ("2d", 172_800), (1.5, 1.5), (0, 0)],
)
def test_duration(text: Any, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1 hour", "-5s", "1m-30s", "5 m 3", "1e3s"])
def test_text_that_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration like"):
        parse_duration(text)


@given(st.dictionaries(st.sampled_from(["d", "h", "m", "s", "ms"]), st.integers(0, 9_999), min_size=1))
def test_parts_of_a_duration_add_up(parts: dict[str, int]) -> None:
    units = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
    text = "".join(f"{count}{unit}" for unit, count in parts.items())
    length = timedelta(milliseconds=sum(units[unit] * count for unit, count in parts.items()))
    assert parse_duration(text) == parse_duration(spelled(length)) == length


def test_duration_is_told_as_it_is_written() -> None:
    for text in ("7d", "1h30m", "30s", "250ms", "0s"):
        assert spelled(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"topics": [], "format": "json"}, "decode[0].topics must have at least 1 item"),
        ({"topics": ["a/#/b"], "format": "json"}, "decode[0].topics[0] has '#' that is not the whole last level"),
        ({"topics": ["$share/g/a"], "format": "json"}, "must be a plain topic filter"),
        ({"topics": ["a"], "format": "xml"}, "decode[0].format must be 'json'"),
        ({"topics": ["a"], "format": "number", "time": "ts"}, "decode[0] time names a field, and a number has none"),
        ({"topics": ["a"], "format": "json", "columns": ["x"]}, "decode[0] columns are for format = 'csv'"),
        ({"topics": ["a"], "format": "csv", "columns": ["x", "x"]}, "decode[0] names two columns alike"),
        ({"topics": ["a"], "format": "csv", "columns": ["x"], "time": "ts"}, "time must be one of the columns ['x']"),
    ],
)
def test_mistakes_of_decode_are_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config({"decode": [entry]})
    assert message in str(caught.value)
