"""Great Expectations suites: what a table's rows should look like, checked after the fact on its recent rows.

The default expectations follow from the declaration (``declared.py``), others from what other tables say of it
(``measures.py``). A table's domain expectations stand in ``data_quality/<layer>_<table>.py`` as ``expectations()``,
those of every table of scores in ``scores.py``; a function ``derived(frame)`` there may add columns that only they
read, and ``REFERENCES`` names the reference tables that must know its values. Great Expectations takes seconds to
import and is imported inside functions only.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from assets.table import Table
from data_quality import scores
from data_quality.declared import declared_expectations, with_lag
from data_quality.measures import SUBJECT, Measure, measure_expectations, measured
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


def run_suite(table: Table, frame: pl.DataFrame, html: Path, measures: Sequence[Measure] = ()) -> SuiteResult:
    """Checks rows of a table against its expectations and writes the page.

    Args:
        table: the declared table.
        frame: its rows, with the stored columns.
        html: the page's path; it is replaced whole.
        measures: what other tables say of it.
    """
    with warnings.catch_warnings():
        # Great Expectations uses deprecated parts of the standard library and of pandas.
        warnings.simplefilter("ignore")
        rows = checked_rows(table, frame)
        results = _validate(table.identifier, rows, row_expectations(table, rows), table.key)
        if measures:
            results += _validate(table.identifier, measured(measures), measure_expectations(measures), SUBJECT)
    failed = sum(not result["success"] for result in results)
    write_report(html, table.identifier, table.description, frame.height, results)
    return SuiteResult(not failed, len(results), failed, results, html)


def checked_rows(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with the columns that only expectations read."""
    domain = domain_of(table)
    return with_lag(table, domain.derived(frame) if domain and hasattr(domain, "derived") else frame)


def row_expectations(table: Table, rows: pl.DataFrame) -> list[Any]:
    """What is expected of the table's rows: by its declaration, and by what is known of its domain."""
    domain = domain_of(table)
    return [*declared_expectations(table, rows), *(domain.expectations() if domain else ())]


def references_of(table: Table) -> Mapping[str, tuple[str, ...]]:
    """The reference tables that must know the table's values, and the columns by which."""
    references: Mapping[str, tuple[str, ...]] = getattr(domain_of(table), "REFERENCES", {})
    return references


def domain_of(table: Table) -> ModuleType | None:
    """The module of the table's domain expectations; None if it has none. Tables of scores share one."""
    if table.model:
        return scores
    name = f"data_quality.{table.layer}_{table.name}"
    return import_module(name) if find_spec(name) else None


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


def _validate(name: str, frame: pl.DataFrame, expectations: Sequence[Any], key: Sequence[str]) -> list[dict[str, Any]]:
    import great_expectations as gx

    for order, expectation in enumerate(expectations):
        expectation.meta = {"order": order}  # results come in another order
    suite = gx.ExpectationSuite(name=name, expectations=list(expectations))
    # SUMMARY gives the positions of bad rows; asking it for their key columns takes minutes where many rows are bad.
    wanted = {"result_format": "SUMMARY", "partial_unexpected_count": EXAMPLES}
    outcome = _batch(frame).validate(suite, result_format=wanted)
    results = sorted(outcome.results, key=lambda result: result.expectation_config.meta["order"])
    return [_summary(key, frame, result) for result in results]


def _summary(key: Sequence[str], frame: pl.DataFrame, outcome: Any) -> dict[str, Any]:
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
        "examples": _examples(key, frame, columns, found.get("partial_unexpected_index_list") or []),
        "error": _error(outcome.exception_info),
    }


def _columns_of(kwargs: dict[str, Any]) -> list[str]:
    named = [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]
    return [*named, *kwargs.get("column_list", [])]


def _examples(
    key: Sequence[str], frame: pl.DataFrame, columns: list[str], positions: list[int]
) -> list[dict[str, str]]:
    """Rows that do not meet an expectation: their key and the columns it is about, as text."""
    shown = [name for name in dict.fromkeys([*key, *columns]) if name in frame.columns]
    rows = frame[positions[:EXAMPLES]].select(shown)
    return [{name: str(value) for name, value in row.items()} for row in rows.iter_rows(named=True)]


def _error(exception_info: dict[str, Any]) -> str | None:
    """The message of the exception that kept an expectation from being evaluated; None if there was none."""
    single = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    messages = [str(info["exception_message"]) for info in single if info.get("raised_exception")]
    return messages[0] if messages else None
