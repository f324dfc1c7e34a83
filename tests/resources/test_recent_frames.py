from concurrent.futures import ThreadPoolExecutor

import polars as pl

from resources.recent_frames import RecentFrames


def frame(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"value": range(rows)}, schema={"value": pl.Int64})


def test_the_newest_stay_within_the_bound() -> None:
    kept = RecentFrames(most_bytes=3 * int(frame(100).estimated_size()))
    for number in range(5):
        kept.put(f"file-{number}", frame(100))
    assert list(kept.among(f"file-{number}" for number in range(5))) == ["file-2", "file-3", "file-4"]
    kept.put("large", frame(1_000))
    assert kept.among(["file-4", "large"]) == {}


def test_threads_may_put_and_read_at_once() -> None:
    kept = RecentFrames(most_bytes=10 * int(frame(10).estimated_size()))

    def work(worker: int) -> None:
        for number in range(300):
            kept.put(f"{worker}-{number}", frame(10))
            for location, found in kept.among([f"{worker}-{number}", "0-0"]).items():
                assert found.height == 10, location

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(kept.among(f"{worker}-{number}" for worker in range(4) for number in range(300))) == 10
