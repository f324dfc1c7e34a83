"""Maintains a lakehouse in a process of its own, which may kill itself with SIGKILL at a named point.

``python -m tests.pipelines.upkeep FOLDER POINT``: see POINTS. ``repeat`` maintains until something comes from
standard input, and tells the errors of tables.
"""

import json
import select
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.config import Config, LakehouseConfig, MaintenanceConfig
from pipelines.context import Context, open_context
from pipelines.maintenance import maintain
from tests.faults.carry import after_metadata_of
from tests.faults.points import around, die, patch

EAGER = MaintenanceConfig(keep_snapshots=1, keep_snapshots_for=timedelta(0), sweep_after=timedelta(0), compact_files=2)
"""Everything that may be merged, expired or deleted is."""

CAREFUL = EAGER.model_copy(update={"sweep_after": timedelta(hours=1), "keep_snapshots": 5})
"""For maintenance beside batches: what is being written is young, and readers hold the newest snapshots."""

PLACES = {
    "rewrite": "resources.lakehouse:Lakehouse",
    "deletion of a file": "pipelines.maintenance",
    "sweep": "pipelines.maintenance",
}
POINTS = (
    "inside rewrite",  # files, manifests and metadata are written; the catalog is not swapped
    "after rewrite",
    "before deletion of a file",  # its snapshots are expired
    "after deletion of a file",
    "before sweep",
)


def opened(folder: Path, settings: MaintenanceConfig, ahead: timedelta = timedelta(minutes=1)) -> Context:
    """A context whose clock is ahead, so that what was written just now is old."""
    context = open_context(Config(lakehouse=LakehouseConfig(path=folder), maintenance=settings))
    context.clock = lambda: datetime.now(UTC) + ahead
    return context


def arm(point: str) -> None:
    when, _, name = point.partition(" ")
    if point == "inside rewrite":
        patch("pyiceberg.catalog.sql:SqlCatalog", "_write_metadata", after_metadata_of("silver.sensor_readings", die))
    elif name in PLACES:
        patch(PLACES[name], name.replace("deletion of a file", "_delete"), around(when, lambda *_: True))


def repeat(folder: Path) -> None:
    rounds, errors = 0, list[str]()
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        errors += [f"{r.table}: {r.error}" for r in maintain(opened(folder, CAREFUL, timedelta(0))) if r.error]
        rounds += 1
    sys.stdout.write(json.dumps({"rounds": rounds, "errors": errors}))


def main(folder: str, point: str) -> int:
    if point == "repeat":
        repeat(Path(folder))
        return 0
    arm(point)
    return 1 if any(r.error for r in maintain(opened(Path(folder), EAGER))) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
