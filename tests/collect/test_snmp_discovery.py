import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.collect.snmp_discovery import MOST_ADDRESSES, FoundAgent, addresses, discover
from pipelines.config import load_config
from pipelines.settings.snmp import SnmpConfig
from resources.errors import ConfigurationError
from tests.resources.snmpd import snmpd

V3 = 'createUser reader SHA "auth password"\nrouser reader authnopriv\n'


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with snmpd(tmp_path_factory.mktemp("snmpd"), community="lab", more=f"sysName srv-1\n{V3}") as port:
        yield port


def auths(folder: Path) -> dict[str, Any]:
    (folder / "community").write_text("lab\n")
    (folder / "password").write_text("auth password\n")
    return {
        "public": {},
        "lab": {"community": {"file": folder / "community"}},
        "v3": {
            "version": "3",
            "user": "reader",
            "auth_protocol": "SHA",
            "auth_password": {"file": folder / "password"},
        },
    }


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (["192.0.2.7"], ["192.0.2.7"]),
        (["192.0.2.0/30", "192.0.2.1"], ["192.0.2.1", "192.0.2.2"]),
        (["192.0.2.254-192.0.3.1"], ["192.0.2.254", "192.0.2.255", "192.0.3.0", "192.0.3.1"]),
        (["2001:db8::1-2001:db8::2"], ["2001:db8::1", "2001:db8::2"]),
    ],
)
def test_ranges(ranges: list[str], expected: list[str]) -> None:
    assert addresses(ranges) == expected


@pytest.mark.parametrize("text", ["sw-1", "192.0.2.9-192.0.2.1", "192.0.2.1-::2", "192.0.2.0/33", ""])
def test_what_is_no_range_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must be an address, a network"):
        addresses([text])


def test_a_range_has_an_end() -> None:
    with pytest.raises(ConfigurationError, match=f"goes beyond {MOST_ADDRESSES} addresses"):
        addresses(["2001:db8::/64"])


@pytest.mark.parametrize("tried", [("public", "lab"), ("v3",)])
def test_agents_are_found_with_the_credentials_that_they_answer(
    tmp_path: Path, agent: int, tried: tuple[str, ...]
) -> None:
    config = SnmpConfig.model_validate({"auths": auths(tmp_path)})
    found = asyncio.run(discover(config, ["127.0.0.1", "127.0.0.2"], agent, tried, 0.3))
    hosts, kinds = [each.host for each in found], {each.auth for each in found}
    assert hosts[0] == "127.0.0.1" and kinds == {tried[-1]}
    first = found[0]
    assert isinstance(first, FoundAgent)
    assert (first.name, first.description) == ("srv-1", "an agent for tests")
    assert {"system", "if-mib", "net-snmp", "host-resources"} <= set(first.modules)


def test_the_command_writes_targets_that_a_configuration_takes(
    tmp_path: Path, agent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "community").write_text("lab\n")
    path, targets = tmp_path / "secchi.toml", tmp_path / "found.csv"
    path.write_text(f'[snmp.auths.lab]\ncommunity = {{file = "{tmp_path / "community"}"}}\n')
    arguments = ["--config", str(path), "discover", "127.0.0.1", "127.9.9.9", "--port", str(agent), "--timeout", "0.3"]
    assert main([*arguments, "--write", str(targets)]) == 0
    out = capsys.readouterr().out
    assert "srv-1" in out and "2 addresses asked" in out
    path.write_text(path.read_text() + '[snmp]\ntarget_files = ["found.csv"]\n')
    found = load_config(path).snmp.targets
    assert (found[0].host, found[0].port, found[0].auth, found[0].modules) == ("127.0.0.1", agent, "lab", ["auto"])
    assert main([*arguments, "--write", str(targets)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "0 of them not configured" in capsys.readouterr().out
    assert main([*arguments, "--auth", "none"]) == 2
    assert "--auth must be one of ['lab'], got 'none'" in capsys.readouterr().err
