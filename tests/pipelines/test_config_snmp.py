"""[snmp] of secchi.toml: credentials, modules and targets, from it and from other files."""

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.config import load_config, parse_config
from pipelines.settings.snmp import SnmpConfig
from pipelines.settings.snmp_module import shipped_modules
from resources.errors import ConfigurationError


def test_options_are_spelled_either_way_and_names_stay_as_they_are() -> None:
    text = """
[snmp.auths.my-auth]
version = "3"
user = "u"
auth-protocol = "sha256"
auth-password = {env = "P"}
priv_protocol = "aes-256c"
priv-password = {env = "P"}
[snmp.modules.my-module]
walk = {system = ".1.3.6.1.2.1.1"}
interval-seconds = 7
[[snmp.targets]]
host = "h"
auth = "my-auth"
modules = ["my-module", "if-mib"]
max-repetitions = 10
timeout_seconds = 1.5
"""
    snmp = parse_config(tomllib.loads(text)).snmp
    auth = snmp.auths["my-auth"]
    assert (auth.auth_protocol, auth.priv_protocol) == ("SHA-256", "AES-256-C")
    assert snmp.every_module["my-module"].walk == ["1.3.6.1.2.1.1"]
    assert snmp.every_module["my-module"].interval == timedelta(seconds=7)
    assert (snmp.targets[0].max_repetitions, snmp.targets[0].timeout) == (10, timedelta(seconds=1.5))


def test_one_option_in_two_spellings_is_told() -> None:
    text = "[snmp.modules.m]\nwalk = ['1.3']\ninterval = '5s'\ninterval-seconds = 5"
    with pytest.raises(
        ConfigurationError, match="has 'interval' and 'interval-seconds', which is the same option twice"
    ):
        parse_config(tomllib.loads(text))


def test_a_module_that_names_no_oids_changes_the_shipped_one() -> None:
    given = {"modules": {"if-mib": {"interval": "10s"}, "system": {"get": ["1.3.6.1.2.1.1.3.0"]}}}
    modules = SnmpConfig.model_validate(given).every_module
    shipped = shipped_modules()
    assert modules["if-mib"] == shipped["if-mib"].model_copy(update={"interval": timedelta(seconds=10)})
    assert (modules["system"].get, modules["system"].sys_object_ids) == (["1.3.6.1.2.1.1.3.0"], [])


@pytest.mark.parametrize(
    ("object_id", "expected"),
    [
        ("1.3.6.1.4.1.9.1.516", {"cisco", "entity-sensor", "if-mib", "system"}),
        ("1.3.6.1.4.1.318.1.3.4.6", {"apc-pdu", "if-mib", "system"}),
        ("1.3.6.1.4.1.318.1.3.27", {"apc-ups", "if-mib", "system"}),
        ("1.3.6.1.4.1.705.1", {"ups-mib", "if-mib", "system"}),
        ("1.3.6.1.4.1.8072.3.2.10", {"net-snmp", "host-resources", "if-mib", "system"}),
        ("1.3.6.1.4.1.99999", {"if-mib", "system"}),
        ("1.3.6.1.2.1.33.9", {"ups-mib", "if-mib", "system"}),
        ("0.0", {"if-mib", "system"}),
    ],
)
def test_shipped_modules_fit_by_sys_object_id(object_id: str, expected: set[str]) -> None:
    assert {name for name, module in shipped_modules().items() if module.fits(object_id)} == expected


def test_targets_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a.csv").write_text(
        "host,port,modules,retries\n10.0.0.1,,system;if-mib,0\n10.0.0.2, 1161 ,auto,\n"
    )
    (tmp_path / "sites" / "b.toml").write_text('[[targets]]\nhost = "10.0.0.3"\nmax-repetitions = 5\n')
    path = tmp_path / "secchi.toml"
    path.write_text('[snmp]\ntarget-files = ["sites/*"]\n[[snmp.targets]]\nhost = "10.0.0.4"\n')
    targets = load_config(path).snmp.targets
    assert [(t.device_id, t.modules, t.retries) for t in targets] == [
        ("10.0.0.4:161", ["auto"], 1),
        ("10.0.0.1:161", ["system", "if-mib"], 0),
        ("10.0.0.2:1161", ["auto"], 1),
        ("10.0.0.3:161", ["auto"], 1),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "host,port\nh,99999\n",
            "a.csv line 2: port must be less than or equal to 65535, got",
        ),
        ("a.csv", "host,colour\nh,red\n", "a.csv line 2: colour is not a known key"),
        ("a.csv", "host,auth\nh,lab\n", "a.csv line 2.auth must be one of ['public'], got 'lab'"),
        ("a.csv", "host\nh\nh\n", "a.csv line 3 is h:161, as "),
        ("a.toml", "[[target]]\nhost = 'h'", "a.toml: target is not a known key"),
        ("a.toml", "targets = [", "a.toml: "),
        ("a.yaml", "", "are .toml or .csv files, got '.yaml'"),
        ("b", "", "snmp.target_files has 'a*', and no file in "),
    ],
)
def test_mistake_in_a_file_of_targets_names_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "secchi.toml").write_text('[snmp]\ntarget_files = ["a*"]\n')
    with pytest.raises(ConfigurationError) as caught:
        load_config(tmp_path / "secchi.toml")
    assert message in str(caught.value)


def test_files_are_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "community").write_text("lab\n")
    (tmp_path / "a.csv").write_text("host\n10.0.0.1\n")
    text = f'[snmp]\ntarget_files = ["{tmp_path}/*.csv"]\n[snmp.auths.public]\ncommunity = {{file = "community"}}\n'
    (tmp_path / "secchi.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    snmp = load_config(tmp_path / "secchi.toml").snmp
    assert [secret.reveal() for secret in snmp.auths["public"].secrets.values()] == ["lab"]
    assert [target.host for target in snmp.targets] == ["10.0.0.1"]
