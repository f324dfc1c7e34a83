"""Files of reference data: CSV, Parquet and JSON, read whole and as they are."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from polars.exceptions import PolarsError

from resources.errors import SourceUnavailableError, reason_of

FileFormat = Literal["csv", "parquet", "json", "ndjson"]
_ENDINGS: dict[str, FileFormat] = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".ndjson": "ndjson"}
_ENDINGS[".jsonl"] = "ndjson"
_MOST_BYTES = 256 * 2**20


def format_of(path: Path) -> FileFormat | None:
    """The format that the ending of a file's name stands for."""
    return _ENDINGS.get(path.suffix.lower())


def version_of(path: Path) -> str | None:
    """Changes when the file does; None while it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_mtime_ns}/{found.st_size}/{found.st_ino}"


def read_reference_file(path: Path, form: FileFormat) -> pl.DataFrame:
    """The rows of a file; those of a CSV as texts.

    Raises:
        SourceUnavailableError: it is not there, cannot be read, is not of the format, or holds no row.
    """
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise SourceUnavailableError(f"{path}: has {size} bytes; reference data may have {_MOST_BYTES}")
        rows = _READERS[form](path.read_bytes())
    except OSError as error:
        raise SourceUnavailableError(reason_of(error)) from error
    except (PolarsError, ValueError, RecursionError) as error:
        raise SourceUnavailableError(f"{path}: is no {form} that can be read: {reason_of(error)}") from error
    if rows.is_empty():
        raise SourceUnavailableError(f"{path}: holds no row")
    return rows


def _read_csv(content: bytes) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")), infer_schema=False)


def _read_parquet(content: bytes) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(content))


def _read_json(content: bytes) -> pl.DataFrame:
    return frame_of(json.loads(content))


def _read_ndjson(content: bytes) -> pl.DataFrame:
    return frame_of([json.loads(line) for line in content.splitlines() if line.strip()])


_READERS: Mapping[FileFormat, Callable[[bytes], pl.DataFrame]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "json": _read_json,
    "ndjson": _read_ndjson,
}


def frame_of(rows: Any) -> pl.DataFrame:
    """Rows as objects, which may lack what is null, as a frame.

    Raises:
        ValueError: they are no list of objects.
        PolarsError: the values of a column are of several kinds.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it must be a list of objects")
    return pl.DataFrame(rows, infer_schema_length=None)
