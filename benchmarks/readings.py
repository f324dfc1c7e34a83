"""Generates the factory readings of the benchmarks: the three shapes of payload, 300 sensors at 1 Hz, out of order."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

SENSORS = 300
CHAIN_READINGS = 1_402_232
_SITES = ((101, "north"), (102, "south"), (103, "east"), (104, "north"), (105, "south"), (106, "east"))
_TAILS = (
    '"unit":"BAR"}',
    '"unit":"Liter","ts_human":"%s","location":{"latitude":-33.924869,"longitude":18.424055}}',
    '"unit":"Amp","ts_human":"%s","location":{"latitude":-33.9137,"longitude":25.5827},"deviceType":"Hoist_Motor"}',
)


def reading(i: int, at_ms: int, value: float) -> tuple[str, str]:
    """Topic and JSON payload of the i-th reading in the order of sending."""
    sensor = i % SENSORS
    site, region = _SITES[sensor % 6]
    tail = _TAILS[sensor % 3]
    if "%s" in tail:
        tail %= datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    head = f'{{"ts":{at_ms},"metadata":{{"siteId":{site},"deviceId":{1000 + sensor // 5},"sensorId":{10000 + sensor},'
    return f"factory_iot/{region}/{site}", f'{head}{tail},"measurement":{value}}}'


def readings(count: int, start_ms: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yields readings whose event times run up to 2 s behind their order; no two share sensor and time.

    Odd seconds are late by an odd number of milliseconds and even ones by an even number, so neighbours never meet.
    """
    random = np.random.default_rng(seed)
    late = (2 * random.integers(0, 1000, count)).tolist()
    values = np.round(random.normal(100, 5, count), 3).tolist()
    for i in range(count):
        second = i // SENSORS
        yield reading(i, start_ms + second * 1000 - late[i] - second % 2, values[i])


def readings_file(folder: Path, count: int, start_ms: int) -> Path:
    """Writes ``topic<TAB>payload`` lines, once a folder, and returns the file."""
    path = folder / f"readings-{count}-{start_ms}.tsv"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        with draft.open("w") as file:
            file.writelines(f"{topic}\t{payload}\n" for topic, payload in readings(count, start_ms))
        draft.rename(path)
    return path
