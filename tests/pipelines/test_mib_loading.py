"""Loading MIB modules: what was collected before becomes readable, from bronze, beside live rows."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from assets.bronze.snmp_varbinds import snmp_varbinds
from assets.ops.requests import requests
from assets.reference.mib_objects import mib_objects
from assets.silver.snmp_samples import snmp_samples
from pipelines import silver_rebuild
from pipelines.cli import main
from pipelines.collect.snmp import RECORD
from pipelines.context import Context
from pipelines.mib_loading import load_mibs
from pipelines.micro_batch import MicroBatches, is_behind
from pipelines.waiting import request_rebuild
from resources.commit import Commit
from resources.landing import LandingLimits, LandingStream
from tests.pipelines.plant import START, Plant

FOLDER = Path(__file__).parents[1] / "resources" / "mibs"
HEAT = "1.3.6.1.4.1.99999.3.1.4.65.66.7.0.17.34.65.66.255.104.111.116"
NAMED = ["observed_at", "object_name", "instance", "metric_value", "enum_label"]


class Devices(Plant):
    """A lakehouse whose landing gets varbinds."""

    def new_stream(self, collector: str = "snmp") -> LandingStream:
        return LandingStream(self.context.landing, snmp_varbinds.name, collector, RECORD, LandingLimits())

    def poll(self, minutes: range, oid: str = HEAT, octets: bytes = b"\x00\xeb", wire_type: str = "Integer32") -> None:
        """One sealed segment of varbinds, one a minute after START."""
        same = {
            "target": "r1:161",
            "poll_id": "p",
            "request_id": 1,
            "oid": oid,
            "wire_type": wire_type,
            "value": octets,
        }
        polled = [{**same, "received_at": START + timedelta(minutes=minute)} for minute in minutes]
        self.stream.write([[record[name] for name in RECORD.names] for record in polled])
        self.stream.seal()

    def samples(self) -> pl.DataFrame:
        return self.table(snmp_samples.identifier).sort("observed_at", "metric_oid")


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    return Devices(tmp_path / "lake")


def test_last_months_unknown_objects_become_readable(devices: Devices) -> None:
    devices.poll(range(3))
    devices.poll(range(1), "1.3.6.1.2.1.1.3.0", b"\x05", "TimeTicks")
    devices.drain()
    before, bronze = devices.samples(), devices.table(snmp_varbinds.identifier)
    assert before.filter(metric_oid=HEAT)["object_name"].null_count() == 3

    load = load_mibs(devices.context, [FOLDER])
    assert load.asked == [snmp_samples.identifier, "silver.trap_events"]
    assert is_behind(devices.context) is not None
    devices.drain()

    after = devices.samples()
    known = after.filter(metric_oid=HEAT)
    assert known.select(NAMED[1:]).unique().rows() == [("rackHeat", "AB,7,00:11:22:41:42:ff,hot", "23.5", None)]
    assert known["numeric_value"].to_list() == [235.0] * 3
    assert devices.table(snmp_varbinds.identifier).equals(bronze)
    uptime = pl.col("object_name") == "sysUpTime"
    assert after.filter(uptime).equals(before.filter(uptime)), "what decodes as before keeps its batch_id"
    assert (known["batch_id"] > before["batch_id"].max()).all(), "readers see that it has changed"
    assert is_behind(devices.context) is None


def test_it_equals_a_lakehouse_that_knew_the_module_from_the_start(devices: Devices, tmp_path: Path) -> None:
    devices.poll(range(5))
    devices.drain()
    load_mibs(devices.context, [FOLDER])
    devices.poll(range(5, 8))
    devices.drain()
    other = Devices(tmp_path / "other")
    load_mibs(other.context, [FOLDER])
    other.poll(range(8))
    other.drain()
    assert devices.samples().select(NAMED).equals(other.samples().select(NAMED))
    assert devices.samples()["object_name"].to_list() == ["rackHeat"] * 8


def test_live_rows_come_with_every_share_of_a_rebuild(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silver_rebuild, "BATCH_ROWS", 10)
    for start in range(0, 60, 10):
        devices.poll(range(start, start + 10))
        devices.drain()
    load_mibs(devices.context, [FOLDER])
    batches = MicroBatches(devices.context)
    counts = []
    for live in range(60, 66):
        devices.poll(range(live, live + 1))
        batches.run_once()
        rows = devices.samples()
        assert rows["observed_at"].max() == START + timedelta(minutes=live)
        counts.append(rows.filter(pl.col("object_name").is_null()).height)
    assert counts == [50, 40, 30, 20, 10, 0]


def test_a_rebuild_of_a_span_leaves_the_rest(devices: Devices) -> None:
    devices.poll(range(10))
    devices.drain()
    load_mibs(devices.context, [FOLDER])
    pretend_no_request(devices.context)
    request_rebuild(
        devices.context, snmp_samples.identifier, START + timedelta(minutes=2), START + timedelta(minutes=5)
    )
    devices.drain()
    named = devices.samples().filter(object_name="rackHeat")["observed_at"]
    assert named.to_list() == [START + timedelta(minutes=minute) for minute in (2, 3, 4)]


def pretend_no_request(context: Context) -> None:
    """Moves the rebuild's marker over the requests that are there."""
    head = context.lakehouse.head(snmp_samples.stored)
    asked = context.lakehouse.head(requests.stored).batch_id
    to = {requests.identifier: asked}
    name = silver_rebuild.producer(snmp_samples)
    context.lakehouse.commit_once(Commit(snmp_samples.stored, name, {}, to, head.batch_id + 1))


def test_rows_whose_bronze_is_gone_stay(devices: Devices) -> None:
    devices.poll(range(3))
    devices.drain()
    before = devices.samples()
    stored = snmp_varbinds.stored
    files = devices.context.lakehouse.files(stored)
    assert devices.context.lakehouse.rewrite(stored, files, [])
    load_mibs(devices.context, [FOLDER])
    devices.drain()
    assert devices.samples().equals(before)


def test_a_module_takes_the_place_of_the_built_in_one_and_outlives_a_new_version(
    devices: Devices, tmp_path: Path
) -> None:
    text = "UPS-MIB DEFINITIONS ::= BEGIN IMPORTS mib-2 FROM SNMPv2-SMI; upsMIB OBJECT IDENTIFIER ::= { mib-2 33 } END"
    (tmp_path / "UPS-MIB.txt").write_text(text)
    load_mibs(devices.context, [tmp_path / "UPS-MIB.txt"])
    ups = devices.table(mib_objects.identifier).filter(mib_module="UPS-MIB")
    assert ups["object_name"].to_list() == ["upsMIB"]

    head = devices.context.lakehouse.head(mib_objects.stored)
    frm = head.markers[mib_objects.identifier]
    older = {**frm, "content": "of an older version"}
    devices.context.lakehouse.commit_once(
        Commit(mib_objects.stored, mib_objects.identifier, frm, older, head.batch_id + 1)
    )
    devices.drain()
    after = devices.table(mib_objects.identifier)
    assert after.filter(mib_module="UPS-MIB").drop("batch_id").equals(ups.drop("batch_id"))
    assert not after.filter(mib_module="IF-MIB").is_empty()
    assert devices.context.lakehouse.head(mib_objects.stored).markers[mib_objects.identifier] == frm


def test_of_two_modules_with_one_oid_the_first_stays(devices: Devices, tmp_path: Path) -> None:
    text = "OTHER-MIB DEFINITIONS ::= BEGIN IMPORTS mib-2 FROM SNMPv2-SMI; mine OBJECT IDENTIFIER ::= { mib-2 33 } END"
    (tmp_path / "OTHER-MIB.txt").write_text(text)
    assert load_mibs(devices.context, [tmp_path]).left_out == {"OTHER-MIB": 1}
    assert "upsMIB" in devices.table(mib_objects.identifier)["object_name"]


def test_the_command_names_what_is_wrong_and_loads_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secchi.toml").write_text('[lakehouse]\npath = "lake"\n')
    folder = tmp_path / "mibs"
    folder.mkdir()
    for source in FOLDER.iterdir():
        (folder / source.name).write_text(source.read_text())
    (folder / "BROKEN-MIB").write_text("BROKEN-MIB DEFINITIONS ::= BEGIN\nIMPORTS foo FROM NO-MIB;\nEND\n")
    (folder / "README").write_text("no module\n")
    arguments = ["--config", str(tmp_path / "secchi.toml"), "mib", "load"]
    assert main([*arguments, str(folder)]) == 1
    out, err = capsys.readouterr()
    assert err == (
        f"secchi: {folder}/BROKEN-MIB:2: BROKEN-MIB: imports foo from NO-MIB, which is not there; load it too\n"
    )
    assert "Loaded 3 modules; silver.snmp_samples, silver.trap_events" in out
    assert main([*arguments, str(folder / "ACME-RACK-MIB.mib")]) == 0, "what it imports stands beside it"
    assert main([*arguments, str(folder / "nothing")]) == 2
    assert "No such file or directory; name a file or a directory of MIB modules" in capsys.readouterr().err
