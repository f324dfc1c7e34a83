"""Traps from landing to silver: nothing twice, and what could not be read is read once its user or MIB is known."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assets.bronze.snmp_traps import snmp_traps
from assets.quarantine.records import records
from assets.silver.trap_events import trap_events
from pipelines.collect.snmp_traps import RECORD
from pipelines.config import parse_config
from pipelines.mib_loading import load_mibs
from pipelines.waiting import request_replay
from resources.errors import ConfigurationError
from resources.landing import LandingLimits, LandingStream
from resources.snmp_ber import object_identifier
from resources.snmp_notification import INFORM, V2_TRAP
from tests.pipelines.plant import START, Plant
from tests.resources.test_snmp_notification import ALICE, LINK_DOWN, TRAP_OID, binding, pdu, v2c, v3

MIBS = Path(__file__).parents[1] / "resources" / "mibs"
AUTHS = {
    "ops": {
        "version": "3",
        "user": "alice",
        "auth_protocol": "SHA-256",
        "auth_password": {"env": "ALICE_AUTH"},
        "priv_protocol": "AES-128",
        "priv_password": {"env": "ALICE_PRIV"},
    }
}


class Traps(Plant):
    """A lakehouse whose landing gets datagrams."""

    def new_stream(self, collector: str = "traps") -> LandingStream:
        return LandingStream(self.context.landing, snmp_traps.name, collector, RECORD, LandingLimits())

    def receive(self, *datagrams: bytes, minute: int = 0, port: int = 5000) -> None:
        at = START + timedelta(minutes=minute)
        self.stream.write([("0.0.0.0:162", "192.0.2.7", port, datagram, at) for datagram in datagrams])
        self.stream.seal()

    def events(self) -> pl.DataFrame:
        return self.table(trap_events.identifier).sort("observed_at", "sequence", "row")

    def configured(self, **sections: Any) -> "Traps":
        """The same lakehouse in a new process with another configuration."""
        self.stream.close()
        config = parse_config(sections)
        return Traps(self.folder, {"snmp": config.snmp, "snmp_traps": config.snmp_traps})


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path / "lake")


def test_an_inform_that_is_sent_again_is_one_event(traps: Traps) -> None:
    inform = v2c(pdu(INFORM, *LINK_DOWN))
    traps.receive(inform, inform)
    traps.receive(inform, minute=1)
    traps.drain()
    traps.receive(inform, minute=59)
    traps.drain()
    assert traps.events().height == 1
    traps.receive(v2c(pdu(INFORM, *LINK_DOWN, request_id=8)), minute=59)
    traps.receive(inform, minute=59, port=5001)
    traps.drain()
    assert traps.events().height == 3


def test_equal_traps_are_events_of_their_own(traps: Traps) -> None:
    traps.receive(*[v2c(pdu(V2_TRAP, *LINK_DOWN))] * 3)
    traps.drain()
    assert traps.events().height == 3


def test_what_cannot_be_read_is_in_quarantine_byte_for_byte(traps: Traps) -> None:
    datagrams = [b"\x00\xff garbage", v3(ALICE, pdu(V2_TRAP, *LINK_DOWN))]
    traps.receive(*datagrams)
    traps.drain()
    kept = traps.table(records.identifier).sort("row")
    assert kept["raw"].to_list() == datagrams
    assert kept["reason"].to_list() == ["not_snmp", "unknown_user"]
    assert traps.table(snmp_traps.identifier)["datagram"].to_list() == datagrams


def test_a_new_user_is_read_after_a_replay(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    traps.receive(v3(ALICE, pdu(INFORM, *LINK_DOWN)), b"garbage")
    traps.drain()
    assert traps.events().is_empty()
    monkeypatch.setenv("ALICE_AUTH", ALICE.auth_password)
    monkeypatch.setenv("ALICE_PRIV", ALICE.priv_password)
    again = traps.configured(snmp={"auths": AUTHS}, snmp_traps={"users": ["ops"]})
    request_replay(again.context, trap_events.identifier, "unknown_user")
    again.drain()
    assert again.events()["user_name"].to_list() == ["alice"]
    waiting = again.table(records.identifier).filter(pl.col("replayed_by").is_null())
    assert waiting["reason"].to_list() == ["not_snmp"]


def test_a_new_mib_names_earlier_traps(traps: Traps) -> None:
    opened = binding(TRAP_OID, object_identifier("1.3.6.1.4.1.99999.0.1"))
    traps.receive(v2c(pdu(V2_TRAP, LINK_DOWN[0], opened)))
    traps.drain()
    before = traps.events()
    assert before["trap_name"].to_list() == [None]
    assert trap_events.identifier in load_mibs(traps.context, [MIBS]).asked
    traps.drain()
    after = traps.events()
    assert after.select("trap_name", "mib_module").row(0) == ("rackOpened", "ACME-RACK-MIB")
    assert after["trap_id"].to_list() == before["trap_id"].to_list()


def test_a_user_that_is_no_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"snmp_traps.users\[0\] must be one of .*\['ops'\], got 'public'"):
        parse_config({"snmp": {"auths": {**AUTHS, "public": {}}}, "snmp_traps": {"users": ["public"]}})
