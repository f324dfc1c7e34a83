"""Carries micro-batches in a process of its own that kills itself with SIGKILL at a named point.

``python -m tests.faults.carry FOLDER POINT``: see POINTS. The product has no hook for it: the point is patched in.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelines.config import Config, LakehouseConfig
from pipelines.context import open_context
from pipelines.micro_batch import MicroBatches
from resources.commit import Commit
from tests.faults.points import around, die, patch
from tests.pipelines.plant import START

COMMITS = (
    "bronze.mqtt_messages",
    "quarantine.records",
    "ops.watermarks",
    "silver.sensor_readings",
    "gold.sensor_windows_1m",
    "ops.batches",
)
POINTS = (
    "none",
    *(f"{when} commit of {table}" for table in COMMITS for when in ("before", "inside", "after")),
    "before removal of a segment",
    "after removal of a segment",
)


def arm(point: str, kill: Callable[[], None] = die) -> None:
    when, _, rest = point.partition(" ")
    if rest == "removal of a segment":
        patch("pipelines.bronze_step", "remove_segment", around(when, lambda *_: True, kill))
    elif rest.startswith("commit of "):
        table = rest.removeprefix("commit of ")
        if when == "inside":  # data, manifests and metadata are written; the catalog is not swapped
            patch("pyiceberg.catalog.sql:SqlCatalog", "_write_metadata", after_metadata_of(table, kill))
        else:
            patch("resources.lakehouse:Lakehouse", "commit_once", around(when, of_table(table), kill))


def after_metadata_of(table: str, kill: Callable[[], None]) -> Callable[[Any], Any]:
    folder = f"/{table.replace('.', '/')}/"

    def wrap(original: Any) -> Any:
        def patched(metadata: Any, io: Any, metadata_path: str) -> None:
            original(metadata, io, metadata_path)
            if folder in metadata_path and "00000-" not in metadata_path:  # not when the table is made
                kill()

        return staticmethod(patched)

    return wrap


def of_table(table: str) -> Callable[..., bool]:
    def is_it(_: Any, commit: Commit) -> bool:
        return commit.table.identifier == table

    return is_it


def main(folder: str, point: str) -> int:
    arm(point)
    context = open_context(Config(lakehouse=LakehouseConfig(path=Path(folder))))
    context.clock = lambda: START + timedelta(hours=6)
    return 1 if any(r.error for r in MicroBatches(context).drain()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
