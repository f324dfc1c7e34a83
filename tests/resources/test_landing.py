import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.errors import LandingFullError, SourceUnavailableError
from resources.landing import (
    LandingLimits,
    LandingStream,
    has_sealed_segments,
    read_segment,
    recover_streams,
    remove_segment,
    sealed_segments,
    stream_names,
)

SCHEMA = pa.schema([("name", pa.string()), ("payload", pa.binary()), ("at", pa.timestamp("us", tz="UTC"))])
Record = tuple[str | None, bytes | None, int]

records = st.tuples(
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.none() | st.binary(max_size=40),
    st.integers(0, 2**50),
)
batches = st.lists(st.lists(records, min_size=1, max_size=4), min_size=1, max_size=4)


def make_stream(root: Path, **limits: Any) -> LandingStream:
    return LandingStream(root, "source", "collector", SCHEMA, LandingLimits(**limits))


def rows_of(table: pa.Table) -> list[Record]:
    times = table["at"].cast(pa.int64()).to_pylist()
    return list(zip(table["name"].to_pylist(), table["payload"].to_pylist(), times, strict=True))


def landed(root: Path) -> list[Record]:
    return [row for segment in sealed_segments(root, "source") for row in rows_of(read_segment(segment.path)[0])]


def write_batches(root: Path, written: list[list[Record]]) -> tuple[bytes, list[int]]:
    """The bytes of an open segment, and where each of its batches ends."""
    stream, ends = make_stream(root), []
    path = stream.directory / "open.arrows"
    for batch in written:
        stream.write(batch)
        ends.append(path.stat().st_size)
    data = path.read_bytes()
    stream.close()
    return data, ends


def recover(data: bytes) -> list[Record]:
    """What recovery makes of an open segment of a dead collector."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "source" / "collector" / "dead"
        directory.mkdir(parents=True)
        (directory / "open.arrows").write_bytes(data)
        recover_streams(Path(folder), "source", dict)
        assert not (directory / "open.arrows").exists()
        return landed(Path(folder))


@settings(max_examples=60)
@given(written=batches, data=st.data())
def test_a_torn_tail_is_cut_at_the_last_whole_batch(written: list[list[Record]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content, ends = write_batches(Path(folder), written)
    cut = data.draw(st.integers(0, len(content)))
    whole = [record for batch, end in zip(written, ends, strict=True) if end <= cut for record in batch]
    assert recover(content[:cut]) == whole


@settings(max_examples=60)
@given(written=batches, tail=st.binary(max_size=400) | st.integers(1, 5000).map(bytes))
def test_a_garbage_tail_is_cut(written: list[list[Record]], tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content, _ = write_batches(Path(folder), written)
    assert recover(content + tail) == [record for batch in written for record in batch]


@settings(max_examples=150)
@given(written=batches, data=st.data())
def test_a_damaged_batch_is_never_taken_for_data(written: list[list[Record]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content, ends = write_batches(Path(folder), written)
    damaged = bytearray(content)
    start = ends[-2] if len(ends) > 1 else ends[-1] - 1
    place = data.draw(st.integers(start, len(content) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    everything = [record for batch in written for record in batch]
    before = everything[: -len(written[-1])]
    assert recover(bytes(damaged)) in (before, everything)


def test_every_damaged_byte_of_a_batch_is_noticed(tmp_path: Path) -> None:
    written: list[list[Record]] = [[("abc", b"xyz", 5), (None, b"", 7)], [("def", None, 9)]]
    content, ends = write_batches(tmp_path, written)
    path = tmp_path / "damaged"
    for place in range(ends[0], ends[1]):
        path.write_bytes(content[:place] + bytes([content[place] ^ 128]) + content[place + 1 :])
        try:
            rows = rows_of(read_segment(path)[0])
        except pa.ArrowInvalid:
            continue
        # A byte of padding or of an unused field changes nothing.
        assert rows == written[0] + written[1], place


def test_segments_are_numbered_and_read_back_whole(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    for number in range(3):
        stream.write([(f"n{number}", b"x", number)])
        stream.write([(None, None, 7)])
        stream.seal()
    assert stream.seal() is None
    assert [s.sequence for s in sealed_segments(tmp_path, "source")] == [1, 2, 3]
    assert {s.stream for s in sealed_segments(tmp_path, "source")} == {stream.name}
    assert landed(tmp_path) == [r for n in range(3) for r in ((f"n{n}", b"x", n), (None, None, 7))]
    stream.close()


def test_a_segment_is_due_by_size_and_by_age(tmp_path: Path) -> None:
    by_size = make_stream(tmp_path, segment_bytes=1, segment_seconds=3600)
    by_age = make_stream(tmp_path, segment_seconds=0)
    neither = make_stream(tmp_path, segment_seconds=3600)
    for stream in (by_size, by_age, neither):
        assert not stream.is_due()
        stream.write([("a", b"b", 1)])
    assert [s.is_due() for s in (by_size, by_age, neither)] == [True, True, False]
    for stream in (by_size, by_age, neither):
        stream.close()


def test_at_its_cap_landing_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    stream = make_stream(tmp_path, capacity_bytes=2000)
    stream.write([("a", bytes(3000), 1)])
    stream.seal()
    with pytest.raises(LandingFullError, match=r"capacity_bytes is 2000"):
        stream.write([("b", b"", 2)])
    remove_segment(sealed_segments(tmp_path, "source")[0])
    stream.write([("b", b"", 2), ("c", b"", 3)])
    stream.close()
    assert landed(tmp_path) == [("b", b"", 2), ("c", b"", 3)]


def fail_once(monkeypatch: pytest.MonkeyPatch, name: str, number: int, skip: int = 0) -> None:
    """Lets a call of ``os`` fail once with an error number, after ``skip`` calls that work."""
    real, calls = getattr(os, name), 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == skip + 1:
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("skip", [0, 1, 2], ids=["header", "first batch", "second batch"])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, LandingFullError), (errno.EIO, SourceUnavailableError)], ids=["full", "broken"]
)
def test_a_failed_write_leaves_no_trace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    skip: int,
    number: int,
    kind: type[SourceUnavailableError],
) -> None:
    stream = make_stream(tmp_path)
    fail_once(monkeypatch, call, number, skip)
    failed = []
    for n in range(4):
        try:
            stream.write([(f"n{n}", b"payload" * 20, n)])
        except SourceUnavailableError as error:
            assert type(error) is kind
            failed.append(f"n{n}")
    stream.close()
    assert len(failed) == 1
    assert [row[0] for row in landed(tmp_path)] == [n for n in ("n0", "n1", "n2", "n3") if n not in failed]


def test_a_tail_that_could_not_be_cut_at_once_is_cut_before_the_seal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(tmp_path)
    stream.write([("a", b"", 1)])
    fail_once(monkeypatch, "write", errno.EIO)
    with pytest.raises(SourceUnavailableError):
        stream.write([("b", bytes(100), 2)])
    stream.close()
    assert landed(tmp_path) == [("a", b"", 1)]


def test_a_seal_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make_stream(tmp_path)
    stream.write([("a", b"", 1)])
    with monkeypatch.context() as patch:
        fail_once(patch, "rename", errno.ENOSPC)
        with pytest.raises(LandingFullError):
            stream.seal()
    stream.write([("b", b"", 2)])
    stream.close()
    assert landed(tmp_path) == [("a", b"", 1), ("b", b"", 2)]


def test_close_releases_the_lock_although_the_seal_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make_stream(tmp_path)
    stream.write([("a", bytes(100), 1)])
    fail_once(monkeypatch, "rename", errno.ENOSPC)
    with pytest.raises(LandingFullError):
        stream.close()
    assert recover_streams(tmp_path, "source", dict) == [stream.name]
    assert landed(tmp_path) == [("a", bytes(100), 1)]


WRITER = """
import sys
from pathlib import Path
from tests.resources.test_landing import make_stream
stream = make_stream(Path(sys.argv[1]), segment_bytes=4000)
number, records = 0, []
while True:
    records.append((f"n{number}", bytes(50), number))
    if number % 3 == 2:
        stream.write(records)
        records = []
        print(number, flush=True)
        if stream.is_due():
            stream.seal()
    number += 1
"""


def test_what_a_killed_collector_had_committed_is_recovered(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for _ in range(40):
            acknowledged = int(child.stdout.readline())
        assert recover_streams(tmp_path, "source", dict) == [], "a live collector's stream must be left alone"
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    recover_streams(tmp_path, "source", dict)
    numbers = [row[2] for row in landed(tmp_path)]
    assert numbers == list(range(len(numbers)))
    assert numbers[-1] >= acknowledged
    sequences = [s.sequence for s in sealed_segments(tmp_path, "source")]
    assert sequences == list(range(1, len(sequences) + 1))


def test_recovery_never_uses_the_number_of_a_removed_segment_again(tmp_path: Path) -> None:
    data, _ = write_batches(tmp_path / "other", [[("a", b"", 1)]])
    directory = tmp_path / "source" / "collector" / "dead"
    directory.mkdir(parents=True)
    for sealed in ([], ["000000000008.arrows"]):
        (directory / "open.arrows").write_bytes(data)
        assert [path.name for path in directory.glob("0*")] == sealed
        assert recover_streams(tmp_path, "source", lambda: {"collector/dead": 7}) == ["collector/dead"]
    assert [s.sequence for s in sealed_segments(tmp_path, "source")] == [8, 9]


def test_a_recreated_directory_is_another_stream(tmp_path: Path) -> None:
    first = make_stream(tmp_path)
    first.write([("a", b"", 1)])
    first.close()
    shutil.rmtree(first.directory)
    second = make_stream(tmp_path)
    second.write([("b", b"", 2)])
    second.close()
    assert first.name != second.name
    assert [(s.stream, s.sequence) for s in sealed_segments(tmp_path, "source")] == [(second.name, 1)]


def test_nothing_is_acknowledged_into_a_removed_directory(tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    stream.write([("a", b"", 1)])
    shutil.rmtree(stream.directory)
    for _ in range(2):
        with pytest.raises(SourceUnavailableError, match="must be restarted"):
            stream.write([("b", b"", 2)])
    with pytest.raises(SourceUnavailableError):
        stream.close()


def test_an_empty_dead_stream_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    live, dead = make_stream(tmp_path), make_stream(tmp_path)
    dead.close()
    assert recover_streams(tmp_path, "source", dict) == []
    assert stream_names(tmp_path, "source") == {live.name}
    assert not has_sealed_segments(tmp_path)
    live.close()
