"""Every table that there is: found by looking, so that a new one needs no entry in a list."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from types import ModuleType
from typing import Any

import assets
from assets.calculation import built_in, built_in_names, calculation
from assets.declarations import Declarations
from assets.joining import sources_of
from assets.scoring import with_groups
from assets.side_input import reference
from assets.table import Table
from assets.threshold import threshold, threshold_events
from ml.groups import Group
from resources.errors import ConfigurationError
from resources.strict_model import shortened

_Wanted = Mapping[str, Any] | Group


def _modules() -> Iterator[ModuleType]:
    """The modules in the folders of ``assets``, in order of their names."""
    for info in sorted(pkgutil.walk_packages(assets.__path__, "assets."), key=lambda found: found.name):
        if not info.ispkg and info.name.count(".") > 1:
            yield importlib.import_module(info.name)


def _home(table: Table) -> str:
    return f"assets.{table.layer}.{table.name}"


def _path(module: str) -> str:
    return f"{module.replace('.', '/')}.py"


def declared_tables(modules: Sequence[ModuleType], calculations: Mapping[str, Table]) -> dict[str, Table]:
    """The tables that modules declare, and the calculations, by identifier.

    Raises:
        ConfigurationError: a table is declared in a file of another name, or twice.
    """
    declared = [(module.__name__, table) for module in modules for table in _tables(module)]
    at_home = {table.identifier: table for name, table in declared if name == _home(table)}
    found = {**at_home, **calculations}
    for name, table in declared:
        if table.identifier not in found:
            right = _path(_home(table))
            raise ConfigurationError(f"{_path(name)}: declares {table.identifier}, which must stand in {right}")
        if found[table.identifier] is not table:
            raise ConfigurationError(
                f"{_path(name)}: {table.identifier} is declared twice; a name must be of one table"
            )
    return found


def _tables(module: ModuleType) -> list[Table]:
    """The tables among a module's names, and the one of its own name, which it may make only when asked."""
    own = getattr(module, module.__name__.rpartition(".")[2], None)
    others = [value for value in vars(module).values() if value is not own]
    return [value for value in (own, *others) if isinstance(value, Table)]


def _in_order(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Inputs and references before the tables that use them."""
    graph = {name: [t.identifier for t in (*tables[name].inputs, *tables[name].references)] for name in sorted(tables)}
    return {name: tables[name] for name in TopologicalSorter(graph).static_order()}


def _add_references(tables: dict[str, Table], declared: Sequence[Declarations]) -> None:
    """Adds the tables of ``[[reference]]``; a built-in one that is filled by it is there already.

    Raises:
        ConfigurationError: a declaration has a mistake, or a name stands twice.
    """
    named: set[str] = set()
    for each in declared:
        for definition in each.references:
            made = reference(definition, tables, each.source)
            if made.identifier in named:
                raise ConfigurationError(f"{each.source}: reference {made.name!r} stands twice; choose another name")
            named.add(made.identifier)
            tables[made.identifier] = made


def _by_need(declared: Sequence[Declarations]) -> list[tuple[Declarations, _Wanted]]:
    """Calculations and groups with the file of each, behind those whose tables they read; else as they stand.

    Raises:
        ConfigurationError: some read each other in a circle.
    """
    wanted: list[tuple[Declarations, _Wanted]] = []
    for each in declared:
        wanted += [(each, definition) for definition in each.calculations]
        wanted += [(each, group) for group in each.groups]
    graph: dict[str, set[str]] = {_made_by(definition): set() for _, definition in wanted}
    for _, definition in wanted:
        named = [definition.source] if isinstance(definition, Group) else sources_of(definition)
        graph[_made_by(definition)] |= graph.keys() & set(named)
    try:
        place = {name: number for number, name in enumerate(TopologicalSorter(graph).static_order())}
    except CycleError as error:
        circle = shortened(" from ".join(reversed(error.args[1])), 300)
        file = next(each.source for each, definition in wanted if _made_by(definition) in error.args[1])
        raise ConfigurationError(
            f"{file}: calculations go in a circle: {circle}; one must read another table"
        ) from error
    return sorted(wanted, key=lambda pair: place[_made_by(pair[1])])


def _made_by(definition: _Wanted) -> str:
    return f"gold.{definition.name}_scores" if isinstance(definition, Group) else f"gold.{definition.get('name')}"


def load_tables(
    calculations: Sequence[Mapping[str, Any]] = (),
    source: str = "secchi.toml",
    *,
    declared: Sequence[Declarations] = (),
) -> dict[str, Table]:
    """Returns every table by identifier, upstream tables first: those that ship and those that a user declares.

    Args:
        calculations: the ``[[calculation]]`` tables of the file ``source``.
        source: starts the messages about them.
        declared: the declarations of other files.

    Raises:
        ConfigurationError: a declaration has a mistake, or two tables have one name.
    """
    shipped = {table.identifier: table for table in map(built_in, built_in_names())}
    tables = declared_tables(list(_modules()), shipped)
    every = (Declarations(source, tuple(calculations)), *declared)
    _add_references(tables, every)
    for each, wanted in _by_need(every):
        if isinstance(wanted, Group):
            tables = with_groups(tables, [wanted], each.source)
        else:
            _enter(tables, calculation(wanted, tables, each.source), f"{each.source}: calculation")
    watched, thresholds = dict(tables), []
    for each in every:
        for definition in each.thresholds:
            thresholds.append(threshold(definition, watched, each.source))
            _enter(tables, thresholds[-1], f"{each.source}: threshold")
    if thresholds:
        _enter(tables, threshold_events(thresholds), "the table of the thresholds' events")
    return _in_order(tables)


def _enter(tables: dict[str, Table], made: Table, place: str) -> None:
    if made.identifier in tables:
        raise ConfigurationError(f"{place} {made.name!r}: {made.identifier} is there already; choose another name")
    tables[made.identifier] = made
