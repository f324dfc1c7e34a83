"""MIB modules become records; one that is broken is named with its line and does not stop the others."""

from pathlib import Path
from typing import Any

import pytest

from assets.reference.mib_objects import known_modules
from resources.mib_compiler import Compiled, compile_modules

FOLDER = Path(__file__).parent / "mibs"
SMI, RACK, OLD = ((FOLDER / f"ACME-{name}.mib").read_text() for name in ("SMI", "RACK-MIB", "OLD-MIB"))
BASE = "1.3.6.1.4.1.99999"


def compiled(**files: str) -> Compiled:
    return compile_modules({f"{name}.mib": text for name, text in files.items()}, known_modules())


def problem(**files: str) -> str:
    (found,) = compiled(**files).problems
    return str(found)


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    found = compiled(rack=RACK, smi=SMI, old=OLD)
    assert found.problems == []
    return {record["object_name"]: record for records in found.modules.values() for record in records}


def test_an_object_says_all_that_its_module_says(objects: dict[str, dict[str, Any]]) -> None:
    assert objects["rackHeat"] == {
        "oid": f"{BASE}.3.1.4",
        "object_name": "rackHeat",
        "info": "How warm it is",
        "oid_type": "tableColumn",
        "mib_module": "ACME-RACK-MIB",
        "units": "degrees Celsius",
        "access": "read-only",
        "status": "current",
        "augments": None,
        "data_type": "AcmeTenths",
        "base_type": "Integer32",
        "textual_convention": "AcmeTenths",
        "display_hint": "d-1",
        "enumeration": None,
        "index_columns": "rackCode:fixed_string/2,ifIndex:integer,rackPort:fixed_octets/6,rackName:implied_string",
    }


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("acme", "oid_type", "moduleIdentity"),
        ("rackDoor", "enumeration", {"1": "open", "2": "closed"}),
        ("rackDoor", "info", "The door"),
        ("rackChecked", "status", "deprecated"),
        ("rackChecked", "display_hint", "2d-1d-1d,1d:1d:1d.1d,1a1d:1d"),
        ("rackFlags", "base_type", "BITS"),
        ("rackFlags", "enumeration", {"0": "door", "1": "fan", "9": "power"}),
        ("rackMoreEntry", "augments", "rackEntry"),
        ("rackPeerEntry", "index_columns", "rackPeerType:integer,rackPeer:inetaddress,rackPeerVia:ipaddress"),
        ("rackOpened", "oid", f"{BASE}.0.1"),
        ("rackOpened", "oid_type", "notification"),
        ("oldName", "textual_convention", "DisplayString"),
        ("oldReads", "base_type", "Counter32"),
        ("oldReads", "oid_type", "scalar"),
        ("oldOpened", "oid", "1.3.6.1.4.1.99998.0.7"),
    ],
)
def test_what_is_said_where(objects: dict[str, dict[str, Any]], name: str, key: str, value: Any) -> None:
    assert objects[name][key] == value


def test_a_row_that_augments_has_the_index_of_the_other(objects: dict[str, dict[str, Any]]) -> None:
    assert objects["rackReads"]["index_columns"] == objects["rackHeat"]["index_columns"]


def test_a_syntax_error_is_told_with_its_line() -> None:
    broken = RACK.replace("SYNTAX     DateAndTime", "SINTAX     DateAndTime")
    found = compiled(rack=broken, smi=SMI)
    assert [str(p) for p in found.problems] == ["rack.mib:18: ACME-RACK-MIB: syntax error at 'SINTAX     DateAndTime'"]
    assert list(found.modules) == ["ACME-SMI"]


def test_a_missing_import_is_told_with_its_line() -> None:
    assert (
        problem(rack=RACK) == "rack.mib:7: ACME-RACK-MIB: imports acme from ACME-SMI, which is not there; load it too"
    )


def test_an_import_that_the_other_does_not_define_is_told() -> None:
    found = compiled(rack=RACK, smi=SMI.replace("AcmeFlags", "AcmeBits"))
    assert [str(p) for p in found.problems] == [
        "rack.mib:7: ACME-RACK-MIB: imports AcmeFlags from ACME-SMI, which does not define it"
    ]


def test_what_imports_from_a_broken_module_is_not_compiled_and_says_why() -> None:
    found = compiled(rack=RACK, smi=SMI.replace("enterprises FROM SNMPv2-SMI", "enterprises FROM NO-SUCH-MIB"), old=OLD)
    assert list(found.modules) == ["ACME-OLD-MIB"]
    assert [p.message for p in found.problems] == [
        "imports enterprises from NO-SUCH-MIB, which is not there; load it too",
        "imports acme from ACME-SMI, which was not compiled",
    ]


def test_a_name_that_is_neither_defined_nor_imported_is_told_with_its_line() -> None:
    assert problem(smi=SMI.replace("{ enterprises 99999 }", "{ nowhere 99999 }")) == (
        "smi.mib:12: ACME-SMI: nowhere is neither defined nor imported"
    )


@pytest.mark.parametrize("text", ["", "no module at all", "-- ACME-MIB"])
def test_a_file_without_a_module_is_told(text: str) -> None:
    assert problem(a=text) == "a.mib: holds no MIB module (no 'NAME DEFINITIONS ::= BEGIN')"


def test_a_file_may_hold_several_modules_of_which_one_is_broken() -> None:
    both = SMI + "\n" + OLD.replace("oldOpened TRAP-TYPE", "oldOpened TRAP-TIPE")
    found = compiled(both=both)
    assert list(found.modules) == ["ACME-SMI"]
    assert [(p.module, p.line) for p in found.problems] == [
        ("ACME-OLD-MIB", 1 + both[: both.index("TRAP-TIPE")].count("\n"))
    ]


def test_a_module_that_is_given_twice_is_taken_once() -> None:
    found = compiled(a=SMI, b=SMI)
    assert [str(p) for p in found.problems] == ["b.mib:2: ACME-SMI: is in a.mib too, which is taken"]
    assert list(found.modules) == ["ACME-SMI"]


def test_modules_may_import_from_each_other() -> None:
    smi = SMI.replace("enterprises FROM SNMPv2-SMI", "enterprises FROM SNMPv2-SMI\n    rackDoor FROM ACME-RACK-MIB")
    assert set(compiled(rack=RACK, smi=smi).modules) == {"ACME-SMI", "ACME-RACK-MIB"}
