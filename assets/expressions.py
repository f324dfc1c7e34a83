"""SQL expressions that users write in calculations: parsed, checked and rewritten on DuckDB's own syntax tree.

A calculation has to give the same bits for the same rows in any order and at any time, and may not reach outside of
them. So only plain expressions over the table's columns are accepted, and only functions whose result depends on
nothing but their arguments; what depends on the order of rows is given their total order.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from assets.windowing import HELD, POSITION, SECONDS
from resources.errors import ConfigurationError, TableFunctionError, reason_of
from resources.geodesy import GREAT_CIRCLE, GREAT_CIRCLE_PARAMETERS, GREAT_CIRCLE_SQL
from resources.quantile_sketch import SKETCH_FUNCTIONS
from resources.strict_model import shortened, shown

_CLASSES = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "TYPE"}
)
_REFUSED = {
    "COLLATE": "a collation",
    "LAMBDA": "a lambda or the arrow -> (use ->> for a JSON field as text)",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column number",
    "STAR": "a star",
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
}
# The other macros of DuckDB look into its catalog or the clock.
_PURE_MACROS = frozenset(
    {"fdiv", "fmod", "geomean", "geometric_mean", "if", "nullif", "split_part", "wavg", "weighted_avg"}
)
_RANDOM_FUNCTIONS = frozenset({"reservoir_quantile"})
_ORDERED_FUNCTIONS = frozenset(
    {"any_value", "arbitrary", "array_agg", "first", "group_concat", "last", "list", "listagg", "string_agg"}
)
_RENAMED_FUNCTIONS = {"quantile": "quantile_cont"}
_COUNTS = frozenset({"count", "count_star"})
_OURS = {
    "delta": ("x, p", "arg_max(x, p) - arg_min(x, p)", (POSITION,)),
    "rate": (
        "x, p, s",
        "(arg_max(x, p) - arg_min(x, p)) / nullif(max(s) FILTER (x IS NOT NULL) - min(s) FILTER (x IS NOT NULL), 0)",
        (POSITION, SECONDS),
    ),
    "slope": ("x, s", "nullif(regr_slope(x, s), 'nan')", (SECONDS,)),
    "time_weighted_mean": (
        "x, h",
        "coalesce(sum(CAST(x AS DOUBLE) * h) / nullif(sum(h) FILTER (x IS NOT NULL), 0), avg(x))",
        (HELD,),
    ),
    "share_of_time": (
        "x, h",
        "coalesce(sum(if(x, h, 0)) / nullif(sum(h) FILTER (x IS NOT NULL), 0), avg(CAST(x AS DOUBLE)))",
        (HELD,),
    ),
    "histogram": (
        "x, b",
        # A value that is no number is of the rest: DuckDB would count it in the first bucket.
        "CAST(map_values(histogram(CASE WHEN isnan(CAST(x AS DOUBLE)) THEN 'infinity' ELSE CAST(x AS DOUBLE) END,"
        " list_append(CAST(b AS DOUBLE[]), CAST('infinity' AS DOUBLE)))) AS BIGINT[])",
        (),
    ),
    GREAT_CIRCLE: (GREAT_CIRCLE_PARAMETERS, GREAT_CIRCLE_SQL, ()),
    **{name: (parameters, body, ()) for name, (parameters, body) in SKETCH_FUNCTIONS.items()},
}
"""Functions that DuckDB has not: parameters, body, and the derived columns that are given behind the user's."""

_TAKES = {
    "histogram": "a value and a list of upper bounds",
    "share_of_time": "a condition",
    "sketch_merge": "sketches",
    "sketch_quantile": "sketches and a share from 0 to 1",
    GREAT_CIRCLE: "latitude and longitude of two points",
}
_PREFIX = "__secchi_"
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Expression:
    """A checked expression.

    Attributes:
        sql: what DuckDB is given.
        columns: the columns that it reads, as declared, each once.
        never_null: whether it is a plain count.
        derived: the derived columns that it needs (see ``assets.windowing``).
    """

    sql: str
    columns: tuple[str, ...] = ()
    never_null: bool = False
    derived: frozenset[str] = frozenset()


def open_sandbox() -> duckdb.DuckDBPyConnection:
    """A connection that has no files, no network and one thread, so sums of floats are made in one order."""
    return _sandbox().cursor()


def evaluate(query: str, rows: pl.DataFrame) -> pl.DataFrame:
    """What a query of checked expressions gives for ``input``, the rows.

    Raises:
        TableFunctionError: an expression fails on a value.
    """
    with open_sandbox() as connection:
        connection.register("input", rows.to_arrow(compat_level=pl.CompatLevel.newest()))
        try:
            return pl.DataFrame(connection.sql(query).to_arrow_table())
        except duckdb.Error as error:
            way_out = "; try_cast is null where cast fails" if isinstance(error, duckdb.ConversionException) else ""
            raise TableFunctionError(
                f"an expression fails on a row: {shortened(reason_of(error), _REASON_CHARACTERS)}{way_out}"
            ) from error


def spill_folder() -> str:
    """Where DuckDB puts what does not fit into memory: by itself, into the folder in which the process stands.

    It is nobody else's: DuckDB lets queries read there even without access to files.
    """
    return str(Path(tempfile.gettempdir()) / f"secchi-{os.getuid()}-duckdb")


@cache
def _sandbox() -> duckdb.DuckDBPyConnection:
    """The database in memory behind every sandbox: opening one takes as long as a small batch."""
    connection = duckdb.connect(
        config={
            "threads": 1,
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "temp_directory": spill_folder(),
        }
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    for name, (parameters, body, _) in _OURS.items():
        connection.execute(f"CREATE MACRO {_PREFIX}{name}({parameters}) AS {body}")
    connection.execute("SET lock_configuration = true")
    return connection


@cache
def _pure_functions() -> frozenset[str]:
    with open_sandbox() as connection:
        rows = connection.execute(
            "SELECT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate')"
            " GROUP BY function_name HAVING bool_and(stability = 'CONSISTENT')"
        ).fetchall()
    return frozenset(name for (name,) in rows) - _RANDOM_FUNCTIONS | _PURE_MACROS


def _ask(connection: duckdb.DuckDBPyConnection, query: str, text: str) -> str:
    row = connection.execute(query, [text]).fetchone()
    assert row is not None
    return str(row[0])


def _only_expression(connection: duckdb.DuckDBPyConnection, text: str, place: str) -> dict[str, Any]:
    """The tree of a text that is one expression and nothing else, so that it cannot add a clause to the query."""
    parsed = json.loads(_ask(connection, "SELECT json_serialize_sql($1)", f"SELECT {text}"))
    if parsed["error"]:
        raise ConfigurationError(
            f"{place} is no SQL expression: {shortened(parsed['error_message'])}, got {shown(text)}"
        )
    statements = parsed["statements"]
    node = statements[0]["node"]
    clauses = ("where_clause", "having", "qualify", "sample", "modifiers", "group_expressions", "group_sets")
    is_bare = len(statements) == 1 and node["type"] == "SELECT_NODE" and not any(node[c] for c in clauses)
    if not is_bare or node["from_table"]["type"] != "EMPTY" or len(node["select_list"]) != 1:
        raise ConfigurationError(f"{place} must be one SQL expression, got {shown(text)}")
    tree: dict[str, Any] = node["select_list"][0]
    if tree["alias"]:
        raise ConfigurationError(f"{place} must be an expression without AS; its name is the key, got {shown(text)}")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def nearest(name: str, names: Sequence[str]) -> str:
    """Ends a message about an unknown name: the nearest right one, and what there is."""
    close = get_close_matches(name.casefold(), [n.casefold() for n in names], n=1)
    meant = next((f"did you mean {n!r}? " for n in names if [n.casefold()] == close), "")
    return f"{meant}there are {', '.join(names)}"


def _column(node: dict[str, Any], names: Sequence[str], place: str) -> str:
    """The declared name that a reference means; DuckDB does not regard case in names."""
    written = ".".join(node["column_names"])
    for name in names:
        if name.casefold() == written.casefold():
            return name
    raise ConfigurationError(f"{place} names {shown(written)}, which is no column: {nearest(written, names)}")


def _reference(name: str) -> dict[str, Any]:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": [name]}


def _rename(function: dict[str, Any], name: str) -> None:
    function["function_name"] = name
    function["qualified_name"] = {"path": [name]}


def _call_ours(function: dict[str, Any], place: str) -> frozenset[str]:
    """Makes a call of one of ``_OURS`` out of what the user wrote; returns the derived columns that it needs."""
    name = function["function_name"]
    parameters, _, derived = _OURS[name]
    wanted = len(parameters.split(",")) - len(derived)
    if len(function["arguments"]) != wanted:
        raise ConfigurationError(
            f"{place}: {name} takes {_TAKES.get(name, 'a value')}, got {len(function['arguments'])} arguments"
        )
    if function["distinct"] or function["filter"] or function["order_bys"]["orders"]:
        raise ConfigurationError(f"{place}: {name} takes no DISTINCT, FILTER or ORDER BY; write a CASE as its argument")
    function["arguments"] += ({"name": "", "expression": _reference(column)} for column in derived)
    _rename(function, f"{_PREFIX}{name}")
    return frozenset(derived)


def _rewrite(function: dict[str, Any], place: str) -> frozenset[str]:
    """Checks a function and gives it its order; returns the derived columns that it needs."""
    name = function["function_name"]
    if name in _OURS and not function["schema"] and not function["catalog"]:
        return _call_ours(function, place)
    if function["schema"] or function["catalog"] or name not in _pure_functions():
        what = "is unknown, or its result does not depend on its arguments alone"
        raise ConfigurationError(f"{place} uses the function {shown(name)}, which {what}{_meant(name)}")
    if name in _RENAMED_FUNCTIONS:
        _rename(function, _RENAMED_FUNCTIONS[name])
    if name in _ORDERED_FUNCTIONS and not function["distinct"]:
        order = {"type": "ORDER_DEFAULT", "null_order": "ORDER_DEFAULT", "expression": _reference(POSITION)}
        function["order_bys"]["orders"].append(order)
        return frozenset({POSITION})
    if name in _ORDERED_FUNCTIONS and not function["order_bys"]["orders"]:
        raise ConfigurationError(f"{place} must give {name}(DISTINCT ...) an order: write ORDER BY behind its argument")
    return frozenset()


def _meant(name: str) -> str:
    close = get_close_matches(name, sorted(_pure_functions() | _OURS.keys()), n=1)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


def _to_sql(connection: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    statement = json.loads(_ask(connection, "SELECT json_serialize_sql($1)", "SELECT 1"))
    statement["statements"][0]["node"]["select_list"] = [tree]
    text = _ask(connection, "SELECT json_deserialize_sql($1::JSON)", json.dumps(statement))
    return text.removeprefix("SELECT ")


def parse_expression(connection: duckdb.DuckDBPyConnection, text: str, names: Sequence[str], place: str) -> Expression:
    """Checks an expression over the columns ``names``; ``place`` starts the messages.

    ``quantile`` means ``quantile_cont``; ``delta``, ``rate``, ``slope``, ``time_weighted_mean``, ``share_of_time``,
    ``histogram(value, bounds)``, ``great_circle_km`` and those of sketches are ours. Functions that depend on the order
    of rows (``first``, ``last``, ``list``) take them in the order that the expression gives, and where it gives none or
    leaves a tie, in their total order.

    Raises:
        ConfigurationError: it is not one expression, names an unknown column, or uses what is not accepted.
    """
    tree = _only_expression(connection, text, place)
    columns: dict[str, None] = {}
    derived: set[str] = set()
    for node in list(_nodes(tree)):
        kind = node["class"]
        if kind not in _CLASSES:
            what = _REFUSED.get(kind, f"a {kind.lower()}")
            raise ConfigurationError(
                f"{place} must be an expression over the table's columns, but has {what}: {shown(text)}"
            )
        if kind == "COLUMN_REF":
            name = _column(node, names, place)
            columns[name] = None
            node["column_names"] = [name]
        elif kind == "FUNCTION":
            derived |= _rewrite(node, place)
    is_count = tree.get("function_name") in _COUNTS
    return Expression(_to_sql(connection, tree), tuple(columns), is_count, frozenset(derived))
