"""What pysmi makes of a MIB module, as records of one shape: types come down to the wire's, INDEX values to kinds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pysmi.codegen.base import AbstractCodeGen

from resources.mib_types import BASES, OBJECT_IDENTIFIER, OCTETS, Known, MibType

_OLD_NAMES = {"Counter": "Counter32", "Gauge": "Gauge32", "NetworkAddress": "IpAddress"}  # RFC 1155 section 3.2.3
_KINDS = {
    ("objecttype", "scalar"): "scalar",
    ("objecttype", "table"): "table",
    ("objecttype", "row"): "tableRow",
    ("objecttype", "column"): "tableColumn",
    ("objectidentity", None): "objectIdentity",
    ("moduleidentity", None): "moduleIdentity",
    ("notificationtype", None): "notification",
    ("objectgroup", None): "objectGroup",
    ("notificationgroup", None): "notificationGroup",
    ("modulecompliance", None): "moduleCompliance",
    ("agentcapabilities", None): "agentCapabilities",
}
_MOST_NESTED = 20


def index_kind(found: MibType, *, is_implied: bool) -> str:
    """How an INDEX value is read from sub-identifiers (RFC 2578 section 7.7); see ``reference.mib_objects``."""
    if found.base == OBJECT_IDENTIFIER:
        return "implied_oid" if is_implied else "oid"
    if found.base == "IpAddress":
        return "ipaddress"
    if found.base not in (OCTETS, "Opaque", "Bits"):
        return "integer"
    if found.convention == "InetAddress":
        return "implied_inetaddress" if is_implied else "inetaddress"
    what = "octets" if (found.display_hint or "").startswith("1x") else "string"
    if len(found.sizes) == 1:
        return f"fixed_{what}/{found.sizes[0]}"
    return f"implied_{what}" if is_implied else what


@dataclass
class Records:
    """The modules of one compilation, which may refer to each other and to the known ones."""

    known: Known
    generated: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _homes: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known_objects = {(r["mib_module"], r["object_name"]): r for r in self.known.objects}

    def add(self, module: str, generated: Mapping[str, Any]) -> None:
        """Takes what pysmi generated for a module."""
        self.generated[module] = generated
        imports = {m: names for m, names in generated.get("imports", {}).items() if m != "class"}
        self._homes[module] = {name: source for source, names in imports.items() for name in names}

    def of(self, module: str) -> list[dict[str, Any]]:
        """The module's records, in order of OID."""
        nodes = self.generated[module].values()
        found = [self._record(module, n) for n in nodes if isinstance(n, Mapping) and "oid" in n and "class" in n]
        return sorted(found, key=lambda r: [int(part) for part in r["oid"].split(".")])

    def _record(self, module: str, node: Mapping[str, Any]) -> dict[str, Any]:
        kind = _KINDS[node["class"], node.get("nodetype") if node["class"] == "objecttype" else None]
        record = {
            "oid": node["oid"],
            "object_name": node["name"],
            "info": node.get("description"),
            "oid_type": kind,
            "mib_module": module,
            "units": node.get("units"),
            "access": node.get("maxaccess"),
            "status": node.get("status"),
            "augments": node["augmention"]["object"] if "augmention" in node else None,
        }
        if kind in ("scalar", "tableColumn"):
            found = self._resolved(module, node["syntax"])
            record |= {
                "data_type": "BITS" if node["syntax"]["type"] == "Bits" else node["syntax"]["type"],
                "base_type": "BITS" if found.base == "Bits" else found.base,
                "textual_convention": found.convention,
                "display_hint": found.display_hint,
                "enumeration": dict(found.enumeration) if found.enumeration else None,
            }
        row = node if kind == "tableRow" else self._row_above(module, node) if kind == "tableColumn" else None
        if row is not None:
            record["index_columns"] = self._index(module, row)
        return record

    def _row_above(self, module: str, node: Mapping[str, Any]) -> Mapping[str, Any] | None:
        above = node["oid"].rpartition(".")[0]
        return next((n for n in self._nodes(module) if n.get("oid") == above and n.get("nodetype") == "row"), None)

    def _nodes(self, module: str) -> list[Mapping[str, Any]]:
        return [n for n in self.generated[module].values() if isinstance(n, Mapping)]

    def _resolved(self, module: str, syntax: Mapping[str, Any]) -> MibType:
        """Follows a SYNTAX through the types that it refines; what is said first on the way holds."""
        convention: str | None = None
        hint: str | None = None
        labels: Mapping[str, str] | None = None
        sizes: tuple[int, ...] = ()
        name, at = syntax["type"], module
        for _ in range(_MOST_NESTED):
            constraints = syntax.get("constraints", {})
            labels = labels or _by_number(constraints.get("enumeration") or syntax.get("bits"))
            sizes = sizes or _sizes(constraints.get("size"))
            name = _OLD_NAMES.get(name, name)
            if name in BASES:
                return MibType(name, convention, hint, labels, sizes)
            at = self._homes.get(at, {}).get(name, at)
            definition = self.generated.get(at, {}).get(AbstractCodeGen.trans_opers(name))
            if definition is None:
                found = self.known.type_of(name, at) or MibType("INTEGER")
                return MibType(
                    found.base,
                    convention or found.convention,
                    hint or found.display_hint,
                    labels or found.enumeration,
                    sizes or found.sizes,
                )
            if definition["class"] == "textualconvention":
                convention = convention or name
            hint = hint or definition.get("displayhint")
            syntax = definition["type"]
            name = syntax["type"]
        return MibType("INTEGER", convention, hint, labels, sizes)

    def _index(self, module: str, row: Mapping[str, Any], depth: int = 0) -> str | None:
        if "augmention" in row and depth < _MOST_NESTED:
            name = row["augmention"]["object"]
            home = self._homes[module].get(name, module)
            if home in self.generated:
                above = self.generated[home].get(AbstractCodeGen.trans_opers(name))
                return self._index(home, above, depth + 1) if above else None
            known = self._known_objects.get((home, name))
            return known.get("index_columns") if known else None
        parts = [self._index_part(module, part) for part in row.get("indices", [])]
        return ",".join(parts) or None

    def _index_part(self, module: str, part: Mapping[str, Any]) -> str:
        name = part["object"]
        home = self._homes[module].get(name, module)
        node = self.generated.get(home, {}).get(AbstractCodeGen.trans_opers(name))
        if node is not None and "syntax" in node:
            found: MibType | None = self._resolved(home, node["syntax"])
        else:
            known = self._known_objects.get((home, name), {})
            found = self.known.type_of(known.get("data_type") or "INTEGER")
        return f"{name}:{index_kind(found or MibType('INTEGER'), is_implied=bool(part['implied']))}"


def _by_number(labels: Mapping[str, int] | None) -> Mapping[str, str] | None:
    return {str(number): label for label, number in sorted(labels.items(), key=lambda i: i[1])} if labels else None


def _sizes(ranges: Sequence[Mapping[str, int]] | None) -> tuple[int, ...]:
    """The lengths, if they are few; empty for a span of lengths."""
    if not ranges or any(r["min"] != r["max"] for r in ranges):
        return ()
    return tuple(dict.fromkeys(r["min"] for r in ranges))
