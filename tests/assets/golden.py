"""Golden cases: ``tests/cases/<table>/<case>/{input,expected}.ndjson``.

A line of ``input`` is a row of the table's input; bytes are written as text, or as hex under ``<column>_hex``. A line
of ``expected`` is ``{"row": {...}}`` or ``{"reject": {...}}``; columns that are null are left out.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

_CASES = Path(__file__).parents[1] / "cases"


def cases(table: str) -> list[Path]:
    return sorted(path for path in (_CASES / table).iterdir() if path.is_dir())


def _value(line: dict[str, Any], name: str, dtype: pl.DataType) -> Any:
    if dtype == pl.Binary:
        return bytes.fromhex(line[f"{name}_hex"]) if f"{name}_hex" in line else line[name].encode()
    if dtype.is_temporal() and line.get(name) is not None:
        return datetime.fromisoformat(line[name])
    return line.get(name)


def read_input(case: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    lines = [json.loads(line) for line in (case / "input.ndjson").read_text().splitlines()]
    rows = [[_value(line, name, dtype) for name, dtype in schema.items()] for line in lines]
    return pl.DataFrame(rows, schema, orient="row")


def read_expected(case: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (case / "expected.ndjson").read_text().splitlines()]


def plain(frame: pl.DataFrame, kind: str) -> list[dict[str, Any]]:
    """Rows of a result as ``expected`` writes them."""
    return [
        {kind: {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items() if v is not None}}
        for row in frame.iter_rows(named=True)
    ]
