"""Collects in a process of its own that kills itself with SIGKILL at a named point.

``python -m tests.faults.collect CONFIG POINT JOURNAL``: see POINTS. The product has no hook for it: the point is
patched in. JOURNAL is told of everything that is fsynced, so that a power cut can take back the rest.
"""

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.collect.runner import run_collectors
from pipelines.config import load_config
from tests.faults.points import around, die, patch

_STREAM, _CONNECTION = "resources.landing:LandingStream", "resources.mqtt:MqttConnection"
POINTS = {
    "after receive": ("pipelines.collect.group_commit:GroupCommit", "put_all"),
    "inside write": ("os", "write"),
    "before fsync": ("os", "fdatasync"),
    "after fsync": (_STREAM, "write_batch"),
    "before acknowledgement": (_CONNECTION, "_send_acknowledgements"),
    "after acknowledgement": (_CONNECTION, "_send_acknowledgements"),
    "before seal": (_STREAM, "seal"),
    "inside seal": ("resources.landing", "fsync_directory"),
    "after seal": (_STREAM, "seal"),
}
_FORGOTTEN = " of what the disk forgets"
FORGETFUL = "after acknowledgement" + _FORGOTTEN
"""The disk does not keep what is written to a file and fsynced."""
_OCCASION = 4
"""The point is passed three times; the process dies at the fourth."""


def on_occasion(is_it: Callable[..., bool]) -> Callable[..., bool]:
    left = _OCCASION

    def counted(*arguments: Any) -> bool:
        nonlocal left
        left -= is_it(*arguments)
        return left == 0

    return counted


def is_renamed_segment(directory: Path) -> bool:
    """Whether a directory is one in which a segment was sealed and none is open."""
    return any(directory.glob("[0-9]*.arrows")) and not (directory / "open.arrows").exists()


def is_batch_of_open_segment(descriptor: int, *_: Any) -> bool:
    """Whether a write is one of records: the header is in the file already."""
    is_open_segment = Path(f"/proc/self/fd/{descriptor}").readlink().name == "open.arrows"
    return is_open_segment and os.fstat(descriptor).st_size > 0


def half_written(original: Callable[[int, memoryview], int]) -> Callable[[int, memoryview], int]:
    is_time = on_occasion(is_batch_of_open_segment)

    def write(descriptor: int, data: memoryview) -> int:
        if is_time(descriptor):
            original(descriptor, data[: len(data) // 2])
            die()
        return original(descriptor, data)

    return write


def arm(point: str, journal: Path) -> None:
    if point == "none":
        return
    for name in ("fsync",) if point == FORGETFUL else ("fsync", "fdatasync"):
        patch("os", name, journalled(journal))
    point = point.removesuffix(_FORGOTTEN)
    if point == "inside write":
        patch(*POINTS[point], half_written)
    elif point == "inside seal":
        patch(*POINTS[point], around("before", on_occasion(is_renamed_segment)))
    else:
        patch(*POINTS[point], around(point.split()[0], on_occasion(lambda *_: True)))


def journalled(journal: Path) -> Callable[[Any], Any]:
    """Notes what is durable after an fsync: the length of a file, or the names in a directory, by inode."""

    def wrap(original: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            original(descriptor)
            path, state = Path(f"/proc/self/fd/{descriptor}").readlink(), os.fstat(descriptor)
            entry: dict[str, Any] = {"inode": state.st_ino, "length": state.st_size}
            if stat.S_ISDIR(state.st_mode):
                entry = {"directory": str(path), "names": {p.name: p.stat().st_ino for p in path.iterdir()}}
            with journal.open("a") as lines:
                lines.write(json.dumps(entry) + "\n")

        return sync

    return wrap


def cut_power(landing: Path, journal: Path) -> int:
    """Takes back what was never fsynced in the streams of a collector that is gone; returns how many bytes that were.

    A rename whose directory was not synced is undone.
    """
    lengths, names = {}, {}
    for entry in map(json.loads, journal.read_text().splitlines()):
        if "inode" in entry:
            lengths[entry["inode"]] = entry["length"]
        else:
            names[entry["directory"]] = {inode: name for name, inode in entry["names"].items()}
    before = sum(p.stat().st_size for p in landing.rglob("*.arrows"))
    for directory in [p.parent for p in landing.resolve().glob("*/*/*/lock") if str(p.parent) in names]:
        durable = {p: names[str(directory)].get(p.stat().st_ino) for p in directory.iterdir()}
        for path in [p for p, name in durable.items() if not name]:
            path.unlink()
        for path, name in durable.items():
            if name:
                os.truncate(path, lengths.get(path.stat().st_ino, 0))
                path.rename(directory / name)
    return before - sum(p.stat().st_size for p in landing.rglob("*.arrows"))


def main(config: str, point: str, journal: str) -> int:
    arm(point, Path(journal))
    return run_collectors(lambda: load_config(Path(config)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
