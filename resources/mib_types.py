"""What is known of MIB modules without their text: objects, and the types that others refine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OCTETS, OBJECT_IDENTIFIER = "OCTET STRING", "OBJECT IDENTIFIER"
BASES = frozenset(
    {"INTEGER", "Integer32", "Unsigned32", "Counter32", "Counter64", "Gauge32", "TimeTicks", "IpAddress", "Opaque"}
    | {OCTETS, OBJECT_IDENTIFIER, "Bits"}
)


@dataclass(frozen=True)
class MibType:
    """What a type comes down to: the base type on the wire, and what its definitions say on the way there.

    ``sizes`` are the lengths that an OCTET STRING may have; empty for any.
    """

    base: str
    convention: str | None = None
    display_hint: str | None = None
    enumeration: Mapping[str, str] | None = None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Known:
    """Modules that need no text: ``objects`` in the shape of the records, ``types`` by module and name."""

    objects: Sequence[Mapping[str, Any]]
    types: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def type_of(self, name: str, module: str | None = None) -> MibType | None:
        """A built-in type: of the module, else of whichever defines one of the name; None if none does."""
        if name in BASES:
            return MibType(name)
        homes = [types for at, types in self.types.items() if name in types and module in (None, at)]
        homes += [types for types in self.types.values() if name in types]
        definition = homes[0][name] if homes else None
        if definition is None:
            return None
        size = definition.get("size")
        return MibType(
            definition["syntax"],
            name,
            definition.get("display_hint"),
            definition.get("enumeration"),
            (size,) if size else (),
        )

    def base(self, data_type: str | None) -> str:
        """The base type of a SYNTAX; INTEGER where there is none."""
        found = self.type_of(data_type) if data_type else None
        return found.base if found else "INTEGER"
