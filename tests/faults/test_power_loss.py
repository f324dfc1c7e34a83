"""Power loss: a landing directory as a disk may hold it at any moment still has every acknowledged record.

A disk holds what was fsynced. Of the rest it may hold anything: a part of a file's unsynced tail, zeros or garbage in
its place, and of a directory either what it was when it was last fsynced or what it is now.
"""

import os
import tempfile
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from resources import landing
from resources.landing import LandingLimits, LandingStream, read_segment, recover_streams, sealed_segments

SCHEMA = pa.schema([("number", pa.int64()), ("payload", pa.binary())])
SEAL = 0


class Disk:
    """Stands for ``os`` in the landing module: remembers what is durable, and copies the disk before a call."""

    def __init__(self, root: Path, copy: Path, cut_at: int, chance: Random, *, is_lying: bool = False) -> None:
        self.root, self.copy = root, copy
        self.calls = self.acknowledged = self.acknowledged_at_cut = 0
        self._left, self._chance, self._is_lying = cut_at, chance, is_lying
        self._lengths: dict[int, int] = {}
        self._entries: dict[int, dict[str, int]] = {}

    def __getattr__(self, name: str) -> Any:
        original = getattr(os, name)
        return self._counted(name, original) if callable(original) else original

    def _counted(self, name: str, original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.before_a_call()
            result = original(*arguments, **options)
            if name in ("fsync", "fdatasync") and not self._is_lying:
                self._note(arguments[0])
            return result

        return call

    def before_a_call(self) -> None:
        self.calls += 1
        if self.calls == self._left:
            self.acknowledged_at_cut = self.acknowledged
            places = {path.stat().st_ino: path for path in (self.root, *self.root.rglob("*"))}
            self._lose_power(self.root, self.copy, places)

    def _note(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_dir():
            self._entries[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self._lengths[status.st_ino] = status.st_size

    def _lose_power(self, source: Path, target: Path, places: dict[int, Path]) -> None:
        target.mkdir()
        entries = {entry.name: entry.inode() for entry in os.scandir(source)}
        if self._chance.random() < 0.5:
            entries = self._entries.get(source.stat().st_ino, {})
        for name, inode in entries.items():
            if inode not in places:
                continue
            if places[inode].is_dir():
                self._lose_power(places[inode], target / name, places)
            else:
                (target / name).write_bytes(self._torn(inode, places[inode].read_bytes()))

    def _torn(self, inode: int, data: bytes) -> bytes:
        durable = self._lengths.get(inode, 0)
        tail = data[durable : durable + self._chance.randint(0, len(data) - durable)]
        damaged = self._chance.choice([tail, bytes(len(tail)), self._chance.randbytes(len(tail))])
        return data[:durable] + damaged


def write_all(disk: Disk, steps: list[int]) -> int:
    """Each step writes as many records, or seals; returns how many were written."""
    with patch.object(landing, "os", disk):
        stream = LandingStream(disk.root, "source", "collector", SCHEMA, LandingLimits())
        number = 0
        for step in steps:
            if step == SEAL:
                stream.seal()
            else:
                stream.write([(n, bytes(n % 50)) for n in range(number, number + step)])
                number += step
                disk.acknowledged = number
        stream.close()
        disk.before_a_call()
    return number


def recovered(root: Path) -> list[int]:
    recover_streams(root, "source", dict)
    return [n for s in sealed_segments(root, "source") for n in read_segment(s.path)[0]["number"].to_pylist()]


steps = st.lists(st.one_of(st.just(SEAL), st.integers(1, 40)), min_size=1, max_size=8)


@given(steps, st.floats(0, 1), st.integers(0, 2**32))
@settings(max_examples=150)
def test_every_acknowledged_record_is_recovered(steps: list[int], moment: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rehearsal").mkdir()
        rehearsal = Disk(Path(folder) / "rehearsal", Path(folder) / "none", 0, Random(0))
        written = write_all(rehearsal, steps)
        (Path(folder) / "root").mkdir()
        cut_at = 1 + int(moment * (rehearsal.calls - 1))
        disk = Disk(Path(folder) / "root", Path(folder) / "copy", cut_at, Random(seed))
        write_all(disk, steps)
        numbers = recovered(disk.copy)
        assert numbers == list(range(len(numbers))), "in order, each once"
        assert disk.acknowledged_at_cut <= len(numbers) <= written


def test_the_comparison_bites(tmp_path: Path) -> None:
    """The negative control: on a disk that forgets what it was told to keep, acknowledged records are gone."""
    lost = 0
    for seed in range(20):
        root = tmp_path / f"root-{seed}"
        root.mkdir()
        disk = Disk(root, tmp_path / f"copy-{seed}", 40, Random(seed), is_lying=True)
        write_all(disk, [10] * 10)
        lost += len(recovered(disk.copy)) < disk.acknowledged_at_cut
    assert lost > 5
