"""A micro-batch on an hourly and a daily window with history beside one on none: from silver, and from minutes.

Processor seconds of the tables alone, commits included. The history is written to silver at once; the tables that are
built from others are computed over it, those from silver are told that they were.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.readings import SENSORS
from benchmarks.windows import BY, SILVER, append, readings
from pipelines.config import parse_config
from pipelines.context import Context, open_context
from pipelines.gold_plan import DEFINITION
from pipelines.gold_step import run_gold
from resources.commit import Commit

_DAY_US = 86_400_000_000
_START_US = 20_015 * _DAY_US + 3_600_000_000
_PAUSES = 1.16  # of the readings: 260 s on, 40 s off
_READ = {"readings": "count()", "total": "sum(measurement)", "lowest": "min(measurement)", "last": "last(measurement)"}
_MERGED = {"readings": "sum(readings)", "total": "sum(total)", "lowest": "min(lowest)", "last": "last(last)"}


def opened(folder: Path) -> Context:
    """A lakehouse with hours and days from silver, and with minutes, hours and days each from the one before."""

    def made(name: str, source: str, size: str, aggregate: Mapping[str, str]) -> dict[str, Any]:
        window = {"kind": "tumbling", "size": size}
        return {"name": name, "from": source, "by": BY, "window": window, "aggregate": dict(aggregate)}

    calculations = [
        made("hours_read", SILVER, "1h", _READ),
        made("days_read", SILVER, "1d", _READ),
        made("minutes", SILVER, "1m", _READ),
        made("hours", "gold.minutes", "1h", _MERGED),
        made("days", "gold.hours", "1d", _MERGED),
    ]
    return open_context(parse_config({"calculation": calculations, "lakehouse": {"path": str(folder)}}))


def pass_over(context: Context, name: str) -> None:
    """Lets a table take what its input holds as computed."""
    table = context.tables[name]
    to = {DEFINITION: table.definition, SILVER: context.lakehouse.head(context.tables[SILVER].stored).batch_id}
    context.lakehouse.commit_once(Commit(table.stored, name, {}, {**to, "ops.requests": 0}, 1))


def spent(context: Context, *names: str) -> float:
    """Processor seconds of one pass over the tables."""
    began = time.process_time()
    for name in names:
        run_gold(context, context.tables[f"gold.{name}"])
    return time.process_time() - began


def on_history(folder: Path, history: int, batch: int) -> dict[str, float]:
    """Processor seconds of a micro-batch behind so many rows, by way."""
    context = opened(folder / str(history))

    def start(row: int) -> int:
        return _START_US + int(row / SENSORS * _PAUSES * 1_000_000)

    for row in range(0, history, 1_000_000):
        append(context, readings(context, min(history - row, 1_000_000), start(row), seed=row // 1_000_000 + 1))
        spent(context, "minutes", "hours", "days")
    if history:
        pass_over(context, "gold.hours_read")
        pass_over(context, "gold.days_read")
    append(context, readings(context, batch, start(history), seed=1000))
    ways = {"1h from silver": ("hours_read",), "1d from silver": ("days_read",)}
    ways |= {"1m": ("minutes",), "1h from 1m": ("hours",), "1d from 1h": ("days",)}
    return {way: spent(context, *names) for way, names in ways.items()}


def main() -> None:
    """Prints what was measured and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--history", type=int, default=10_000_000)
    options.add_argument("--batch", type=int, default=10_000)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="secchi-long-windows-"))
    try:
        on_history(folder / "warm", 0, chosen.batch)
        none, full = on_history(folder, 0, chosen.batch), on_history(folder, chosen.history, chosen.batch)
    finally:
        shutil.rmtree(folder)
    for way, seconds in full.items():
        print(f"{way:15} {none[way]:.3f} s on no rows, {seconds:.3f} s on {chosen.history}: {seconds / none[way]:.1f}")
    ratios = (f"{way.replace(' ', '_')}={full[way] / none[way]:.2f}" for way in full)
    print(f"long_windows: {' '.join(ratios)}")


if __name__ == "__main__":
    main()
