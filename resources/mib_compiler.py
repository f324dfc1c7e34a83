"""MIB modules (SMIv1: RFC 1155, 1212, 1215; SMIv2: RFC 2578-2580) from text to objects.

pysmi parses a module and resolves its OIDs. Each module is parsed and resolved by itself, so that one that is broken
does not stop the others, and what is wrong is told with the module, the file and the line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pysmi.codegen.base import AbstractCodeGen
from pysmi.codegen.intermediate import IntermediateCodeGen
from pysmi.codegen.symtable import SymtableCodeGen
from pysmi.error import PySmiError
from pysmi.parser.dialect import smi_v1_relaxed
from pysmi.parser.smi import parserFactory

from resources.mib_records import Records
from resources.mib_types import OBJECT_IDENTIFIER, OCTETS, Known

Record = dict[str, Any]

BASE_MODULES = frozenset(
    {"ASN1", "RFC1065-SMI", "RFC1155-SMI", "RFC-1212", "RFC-1215", "SNMPv2-SMI", "SNMPv2-TC", "SNMPv2-CONF"}
)
"""Modules that define the language itself; their text is never compiled, what they define is built in."""

_HEAD = re.compile(r"^[ \t]*([A-Za-z][\w-]*)\s*(?:\{[^{}]*\}\s*)?DEFINITIONS\s*::=\s*BEGIN\b", re.MULTILINE)
# Types that modules use without importing them; every MIB tool takes them for the ones of SNMPv2-SMI.
_TAKEN_FOR_GRANTED = ("Counter32", "Counter64", "Gauge32", "Unsigned32", "TimeTicks", "IpAddress", "Opaque")
_MACROS = frozenset({*SymtableCodeGen.symsTable, "MODULE-COMPLIANCE", "TRAP-TYPE", "Bits", "MibIdentifier"})
_SYMBOL_BASES = {
    OCTETS: "OctetString",
    OBJECT_IDENTIFIER: "ObjectIdentifier",
    "IpAddress": "OctetString",
    "Opaque": "OctetString",
}
_OFFSET = re.compile(r"Bad grammar near offset (\d+)")
_UNKNOWN = re.compile(r'(?:symbols?:? |symbol ")([\w-]+)')


@dataclass(frozen=True)
class MibProblem:
    """Why a module was not compiled; ``line`` is 0 where it is not known."""

    path: str
    line: int
    module: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.module}: {self.message}" if self.module else f"{place}: {self.message}"


@dataclass
class _Module:
    name: str
    path: str
    text: str
    tree: Any
    symbols: dict[str, Any] = field(default_factory=dict)

    def copied_tree(self) -> Any:
        """The tree for a generator, which changes it, with the imports that are left out by habit."""
        name, oid, imports, declarations = deepcopy(self.tree)
        imports = {module: list(symbols) for module, symbols in dict(imports or {}).items()}
        declared = {d[1] for d in declarations or [] if d and isinstance(d[1], str)}
        imported = {symbol for symbols in imports.values() for symbol in symbols}
        granted = [t for t in _TAKEN_FOR_GRANTED if t not in imported and t not in declared]
        imports["SNMPv2-SMI"] = [*imports.get("SNMPv2-SMI", []), *granted]
        return name, oid, imports, declarations

    @property
    def imports(self) -> dict[str, list[str]]:
        """Module to symbols, as written."""
        return {module: list(names) for module, names in dict(self.tree[2] or {}).items()}

    def problem(self, message: str, *symbols: str) -> MibProblem:
        """A problem at the first line that names the first of ``symbols`` that the text has."""
        return MibProblem(
            self.path, next(filter(None, (_line_of(self.text, s) for s in symbols if s)), 0), self.name, message
        )


@dataclass
class Compiled:
    """Records of each module that was compiled, and what was wrong with the others."""

    modules: dict[str, list[Record]] = field(default_factory=dict)
    problems: list[MibProblem] = field(default_factory=list)


def compile_modules(files: Mapping[str, str], known: Known) -> Compiled:
    """Compiles the modules in ``files`` (path to text).

    Args:
        files: each may hold several modules.
        known: the modules that are there already; a module of ``files`` takes the place of one of the same name.
    """
    result = Compiled()
    modules: dict[str, _Module] = {}
    for path, text in files.items():
        for module in _parsed(path, text, result.problems):
            if module.name in modules:
                first = modules[module.name].path
                result.problems.append(module.problem(f"is in {first} too, which is taken", module.name))
            elif module.name not in BASE_MODULES:
                modules[module.name] = module
    _add_symbols(modules, result.problems)
    symbols = {name: table for name, table in _known_symbols(known).items() if name not in modules}
    symbols |= {name: module.symbols for name, module in modules.items()}
    _drop_unresolved(modules, symbols, result.problems)
    _generate(modules, symbols, known, result)
    return result


def defined_modules(text: str) -> list[str]:
    """Names of the modules that a text holds, read without parsing it."""
    return [head[1] for head in _HEAD.finditer(text)]


def imported_modules(text: str) -> set[str]:
    """Names of the modules that a text imports from, read without parsing it."""
    return {
        name for part in re.findall(r"\bIMPORTS\b([^;]*);", text) for name in re.findall(r"\bFROM\s+([\w-]+)", part)
    }


@cache
def _parser() -> Any:
    return parserFactory(**smi_v1_relaxed)()


def _parsed(path: str, text: str, problems: list[MibProblem]) -> Iterator[_Module]:
    heads = list(_HEAD.finditer(text))
    if not heads:
        problems.append(MibProblem(path, 0, "", "holds no MIB module (no 'NAME DEFINITIONS ::= BEGIN')"))
        return
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        # Blank lines before it keep the numbers of the lines.
        part = "\n" * text.count("\n", 0, head.start()) + text[head.start() : end]
        try:
            (tree,) = _parser().parse(part)
        except PySmiError as error:
            problems.append(_syntax_problem(path, head[1], part, error))
        except ValueError:
            problems.append(MibProblem(path, _line_of(part, head[1]), head[1], "is not ended by END"))
        else:
            yield _Module(head[1], path, part, tree)


def _syntax_problem(path: str, name: str, text: str, error: PySmiError) -> MibProblem:
    line = getattr(error, "lineno", 0)
    found = _OFFSET.match(error.msg)
    if not found:
        return MibProblem(path, line if isinstance(line, int) else 0, name, f"syntax error: {error.msg}")
    rest = text[max(0, int(found[1])) :].split("\n", 1)[0].strip()
    what = f"syntax error at {rest[:60]!r}" if rest else "syntax error: the module ends too early"
    return MibProblem(path, line if isinstance(line, int) else 0, name, what)


def _line_of(text: str, symbol: str) -> int:
    found = re.search(rf"(?<![\w-]){re.escape(symbol)}(?![\w-])", text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _known_symbols(known: Known) -> dict[str, dict[str, Any]]:
    """Symbol tables of the known modules, as pysmi makes them."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in BASE_MODULES}
    for record in known.objects:
        oid = tuple(map(int, record["oid"].split(".")))
        syntax = ((_SYMBOL_BASES.get(known.base(record.get("data_type")), "Integer32"), ""), "")
        entry = {"type": "ObjectType", "oid": oid, "syntax": syntax, "origName": record["object_name"]}
        tables.setdefault(record["mib_module"], {})[AbstractCodeGen.trans_opers(record["object_name"])] = entry
    for module, types in known.types.items():
        for name, definition in types.items():
            labels = {label: int(code) for code, label in definition.get("enumeration", {}).items()}
            base = _SYMBOL_BASES.get(definition["syntax"], "Integer32")
            entry = {"type": "TypeDeclaration", "syntax": ((base, ""), labels), "isTC": True, "origName": name}
            tables.setdefault(module, {})[AbstractCodeGen.trans_opers(name)] = entry
    return tables


def _add_symbols(modules: dict[str, _Module], problems: list[MibProblem]) -> None:
    for name, module in list(modules.items()):
        try:
            # A generator of its own: pysmi's keeps the names of one module's sequences for the next.
            _, module.symbols = SymtableCodeGen().gen_code(module.copied_tree(), {})
        except PySmiError as error:
            problems.append(_semantic_problem(module, error))
            del modules[name]


def _semantic_problem(module: _Module, error: PySmiError) -> MibProblem:
    found = _UNKNOWN.search(error.msg)
    name = found[1] if found else ""
    message = error.msg[0].lower() + error.msg[1:]
    if error.msg.startswith("Unknown parents"):
        message = f"the type or the row of {name} is neither defined nor imported"
    elif error.msg.startswith("Unknown parent"):
        message = f"{name} is neither defined nor imported"
    return module.problem(message, name)


def _drop_unresolved(
    modules: dict[str, _Module], symbols: Mapping[str, Mapping[str, Any]], problems: list[MibProblem]
) -> None:
    """Drops the modules whose imports are not there, and those that import from them."""
    failed: set[str] = set()
    while True:
        found = [(name, problem) for name, module in modules.items() if (problem := _missing(module, symbols, failed))]
        if not found:
            return
        for name, problem in found:
            problems.append(problem)
            failed.add(name)
            del modules[name]


def _missing(module: _Module, symbols: Mapping[str, Mapping[str, Any]], failed: Iterable[str]) -> MibProblem | None:
    for source, names in module.imports.items():
        replaced = AbstractCodeGen.convertImportv2.get(source, {})
        for name in names:
            for at, symbol in replaced.get(name, [(source, name)]):
                if symbol in _MACROS or at == module.name:
                    continue
                if at in failed:
                    return module.problem(f"imports {name} from {source}, which was not compiled", name)
                if at not in symbols:
                    return module.problem(f"imports {name} from {source}, which is not there; load it too", source)
                if AbstractCodeGen.trans_opers(symbol) not in symbols.get(at, {}):
                    return module.problem(f"imports {name} from {source}, which does not define it", name)
    return None


def _generate(
    modules: Mapping[str, _Module], symbols: Mapping[str, Mapping[str, Any]], known: Known, result: Compiled
) -> None:
    records = Records(known)
    for name, module in modules.items():
        try:
            _, generated = IntermediateCodeGen().gen_code(module.copied_tree(), symbols, genTexts=True)
        except PySmiError as error:
            result.problems.append(_semantic_problem(module, error))
        else:
            records.add(name, generated)
    for name in records.generated:
        result.modules[name] = records.of(name)


def ordered(problems: Sequence[MibProblem]) -> list[MibProblem]:
    """By file and line."""
    return sorted(problems, key=lambda p: (p.path, p.line, p.module))
