"""Great Expectations suites: what a table's rows should look like, checked after the fact on its recent rows.

The default expectations follow from the declaration. A table's domain expectations stand in
``data_quality/<layer>_<table>.py`` as ``expectations()``; a function ``derived(frame)`` there may add columns that only
they read. Great Expectations takes seconds to import and is imported inside functions only.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from assets.table import Column, Table
from data_quality.report import write_report

EXAMPLES = 5


@dataclass(frozen=True)
class SuiteResult:
    """The outcome of a suite.

    Attributes:
        success: whether every expectation was met.
        evaluated: number of expectations.
        failed: number of those not met.
        expectations: one dictionary an expectation, in order, of JSON values: ``expectation``, ``columns``,
            ``description``, ``severity`` (critical, warning, info), ``success``, ``unexpected`` (rows; None for a
            property of the whole table), ``observed``, ``examples`` (up to ``EXAMPLES`` rows: key and columns as text),
            ``error``.
        html: the page for people.
    """

    success: bool
    evaluated: int
    failed: int
    expectations: list[dict[str, Any]]
    html: Path


def expectation_types() -> Any:
    """The classes of ``great_expectations.expectations``, which its type hints do not export."""
    return import_module("great_expectations.expectations")


def run_suite(table: Table, frame: pl.DataFrame, html: Path) -> SuiteResult:
    """Checks rows of a table against its expectations and writes the page.

    Args:
        table: the declared table.
        frame: its rows, with the stored columns.
        html: the page's path; it is replaced whole.
    """
    domain = _domain(table)
    with warnings.catch_warnings():
        # Great Expectations uses deprecated parts of the standard library and of pandas.
        warnings.simplefilter("ignore")
        expectations = [*_declared(table, frame), *(domain.expectations() if domain else ())]
        checked = domain.derived(frame) if domain and hasattr(domain, "derived") else frame
        results = _validate(table, checked, expectations)
    failed = sum(not result["success"] for result in results)
    write_report(html, table.identifier, table.description, frame.height, results)
    return SuiteResult(not failed, len(results), failed, results, html)


def _domain(table: Table) -> ModuleType | None:
    name = f"data_quality.{table.layer}_{table.name}"
    return import_module(name) if find_spec(name) else None


def _declared(table: Table, frame: pl.DataFrame) -> Iterator[Any]:
    """What the declaration says. Values are only expected of columns that are there; a missing column fails once."""
    gxe = expectation_types()
    yield gxe.ExpectTableColumnsToMatchSet(
        column_set=list(table.schema), exact_match=False, description="The table has every declared column"
    )
    if set(table.key) <= set(frame.columns):
        yield _unique_key(table)
    for column in table.columns:
        if column.name in frame.columns:
            yield from _of_column(column, table.schema[column.name])


def _unique_key(table: Table) -> Any:
    gxe = expectation_types()
    description = f"No two rows have the same {', '.join(table.key)}"
    if len(table.key) == 1:
        return gxe.ExpectColumnValuesToBeUnique(column=table.key[0], description=description)
    return gxe.ExpectCompoundColumnsToBeUnique(
        column_list=list(table.key), ignore_row_if="never", description=description
    )


def _of_column(column: Column, dtype: pl.DataType) -> Iterator[Any]:
    gxe = expectation_types()
    if expected := _python_type(dtype):
        yield gxe.ExpectColumnValuesToBeOfType(
            column=column.name, type_=expected, description=f"{column.name} is {dtype.base_type()}"
        )
    if column.required:
        yield gxe.ExpectColumnValuesToNotBeNull(column=column.name, description=f"{column.name} is never null")
    if column.minimum is not None or column.maximum is not None:
        low = "any" if column.minimum is None else column.minimum
        high = "any" if column.maximum is None else column.maximum
        yield gxe.ExpectColumnValuesToBeBetween(
            column=column.name,
            min_value=column.minimum,
            max_value=column.maximum,
            description=f"{column.name} is from {low} to {high}",
        )


def _python_type(dtype: pl.DataType) -> str | None:
    """The type as Great Expectations names it in a frame made by ``_to_pandas``; None for nested types."""
    if dtype.is_integer():
        return "int"
    if dtype.is_float():
        return "float"
    names = {pl.String: "str", pl.Boolean: "bool", pl.Binary: "bytes", pl.Datetime: "Timestamp"}
    return names.get(dtype.base_type())


def _to_pandas(frame: pl.DataFrame) -> Any:
    """Arrow-backed columns, so that integers with nulls stay integers; times as pandas' own, which are faster."""
    converted = frame.to_pandas(use_pyarrow_extension_array=True)
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Datetime):
            zone = f", {dtype.time_zone}" if dtype.time_zone else ""
            converted[name] = converted[name].astype(f"datetime64[{dtype.time_unit}{zone}]")
    return converted


def _batch(frame: pl.DataFrame) -> Any:
    """The rows as a Great Expectations batch, in a context that lives in memory and writes no files."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(mode="ephemeral", project_config=config)
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": _to_pandas(frame)})


def _validate(table: Table, frame: pl.DataFrame, expectations: Sequence[Any]) -> list[dict[str, Any]]:
    import great_expectations as gx

    for order, expectation in enumerate(expectations):
        expectation.meta = {"order": order}  # results come in another order
    suite = gx.ExpectationSuite(name=table.identifier, expectations=list(expectations))
    # SUMMARY gives the positions of bad rows; asking it for their key columns takes minutes where many rows are bad.
    wanted = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    outcome = _batch(frame).validate(suite, result_format=wanted)
    results = sorted(outcome.results, key=lambda result: result.expectation_config.meta["order"])
    return [_summary(table, frame, result) for result in results]


def _summary(table: Table, frame: pl.DataFrame, outcome: Any) -> dict[str, Any]:
    configuration, found = outcome.expectation_config, outcome.result
    columns = _columns_of(configuration.kwargs)
    observed = found.get("observed_value")
    return {
        "expectation": configuration.type,
        "columns": columns,
        "description": configuration.description or configuration.type,
        "severity": str(getattr(configuration.severity, "value", configuration.severity)),
        "success": bool(outcome.success),
        "unexpected": found.get("unexpected_count"),
        "observed": None if observed is None else str(observed),
        "examples": _examples(table, frame, columns, found.get("partial_unexpected_index_list") or []),
        "error": _error(outcome.exception_info),
    }


def _columns_of(kwargs: dict[str, Any]) -> list[str]:
    named = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [*named, *kwargs.get("column_list", [])]


def _examples(table: Table, frame: pl.DataFrame, columns: list[str], positions: list[int]) -> list[dict[str, str]]:
    """Rows that do not meet an expectation: their key and the columns it is about, as text."""
    shown = [name for name in dict.fromkeys([*table.key, *columns]) if name in frame.columns]
    rows = frame[positions[:EXAMPLES]].select(shown)
    return [{name: str(value) for name, value in row.items()} for row in rows.iter_rows(named=True)]


def _error(exception_info: dict[str, Any]) -> str | None:
    """The message of the exception that kept an expectation from being evaluated; None if there was none."""
    single = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    messages = [str(info["exception_message"]) for info in single if info.get("raised_exception")]
    return messages[0] if messages else None
