"""kill -9 of the collector between receiving and sealing; what the broker took is in silver once afterwards."""

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import polars as pl
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from pipelines.collect.mqtt import SOURCE
from resources.landing import read_segment, recover_streams, sealed_segments
from tests.collect.mosquitto import Mosquitto, mosquitto, publish
from tests.faults.collect import FORGETFUL, POINTS, cut_power
from tests.pipelines.plant import SERIES, Plant, Reading, compared, one_shot

READINGS = [Reading(s, t, float(s + t)) for t in range(0, 240, 2) for s in range(5)]
KEYS = {
    "silver.sensor_readings": [*SERIES, "observed_at"],
    "gold.sensor_windows_1m": [*SERIES, "window_start"],
}
ARRIVAL = ["received_at", "stream", "sequence", "row", "region"]
"""What differs from one way to another: the topic names the site."""
_AT_ONCE = 10
NAMES = iter(range(1000))
CONFIG = """
[landing]
segment_bytes = 2000
segment_age = "200ms"
[[mqtt]]
name = "{name}"
port = {port}
topics = ["factory_iot/{name}/#"]
reconnect_min = "50ms"
reconnect_max = "100ms"
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    return tables(one_shot(tmp_path_factory.mktemp("reference"), READINGS))


def tables(plant: Plant) -> dict[str, pl.DataFrame]:
    return {t: compared(plant.table(t).drop(ARRIVAL, strict=False), key) for t, key in KEYS.items()}


class Site:
    """A broker's topic with a session of its own, and the lakehouse that collects from it."""

    def __init__(self, folder: Path, broker: Mosquitto) -> None:
        self.folder, self.broker, self.name = folder, broker, f"site-{next(NAMES)}"
        self.landing, self.journal = folder / "data" / "landing", folder / "synced"
        self.config = folder / "secchi.toml"
        self.config.write_text(CONFIG.format(name=self.name, port=broker.port))
        self.unpublished = READINGS
        self._subscribe()

    def _subscribe(self) -> None:
        """Opens the collector's session, so that the broker keeps what is published before it comes."""
        name = f"secchi-{self.name}"
        session = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        subscribed = threading.Event()
        session.on_connect = lambda client, *_: client.subscribe(f"factory_iot/{self.name}/#", 1)
        session.on_subscribe = lambda *_: subscribed.set()
        session.connect("127.0.0.1", self.broker.port)
        session.loop_start()
        assert subscribed.wait(60)
        session.disconnect()
        session.loop_stop()

    def publish(self, count: int | None = None) -> None:
        """Publishes the next readings, or all that are left; returns when the broker has taken every one."""
        taken, self.unpublished = self.unpublished[:count], self.unpublished[count:] if count else []
        publish(self.broker.port, [r.payload for r in taken], f"factory_iot/{self.name}/101")

    @contextmanager
    def collector(self, point: str = "none", **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
        arguments = [str(self.config), point, str(self.journal)]
        command = [sys.executable, "-m", "tests.faults.collect", *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def landed(self) -> set[bytes]:
        segments = [read_segment(s.path)[0] for s in sealed_segments(self.landing, SOURCE) if s.size]
        return {payload for table in segments for payload in table["payload"].to_pylist()}

    def bytes_landed(self) -> int:
        total = 0
        for path in self.landing.rglob("*.arrows"):
            with suppress(FileNotFoundError):  # it was sealed meanwhile
                total += path.stat().st_size
        return total

    def wait_for(self, process: "subprocess.Popen[bytes]", readings: Sequence[Reading] = READINGS) -> None:
        """Waits until all of them are in landing, and ends the collector."""
        expected = {r.payload for r in readings}
        wait_until(lambda: self.landed() >= expected)
        process.terminate()
        assert process.wait(60) == 0


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)


def assert_once(site: Site, reference: dict[str, pl.DataFrame]) -> int:
    """Carries what landed; silver and gold equal the reference. Returns how many messages came more than once."""
    plant = Plant(site.folder / "data")
    results = plant.batches.drain()
    assert not [r for r in results if r.error]
    for table, found in tables(plant).items():
        assert found.equals(reference[table]), table
    repeated = plant.table("bronze.mqtt_messages").height - len(READINGS)
    assert sum(r.duplicates for r in results if r.table == "silver.sensor_readings") == repeated
    assert plant.table("quarantine.records").is_empty()
    return repeated


def kill(site: Site, point: str) -> None:
    """More readings come whenever the collector has written some, until it dies."""
    written = site.bytes_landed()
    with site.collector(point) as process:

        def has_died() -> bool:
            nonlocal written
            before, written = written, max(written, site.bytes_landed())
            if written > before and process.poll() is None:
                assert site.unpublished, f"the collector passes by {point}"
                site.publish(_AT_ONCE)
            return process.poll() is not None

        wait_until(has_died)
    assert process.returncode == -9, point


def test_killed_at_one_point_after_the_other(
    tmp_path: Path, broker: Mosquitto, reference: dict[str, pl.DataFrame]
) -> None:
    site = Site(tmp_path, broker)
    for point in POINTS:
        site.publish(_AT_ONCE)
        kill(site, point)
        recover_streams(site.landing, SOURCE, dict)  # as the next plan does
    collect_the_rest(site)
    assert assert_once(site, reference) > 0, "the broker sends again what it has no acknowledgement of"


def test_power_cut(tmp_path: Path, broker: Mosquitto, reference: dict[str, pl.DataFrame]) -> None:
    """What was never fsynced is gone; the broker still has it."""
    site = Site(tmp_path, broker)
    for point in ("inside write", "before fsync", "after fsync", "inside seal"):
        site.publish(_AT_ONCE)
        site.journal.unlink(missing_ok=True)
        kill(site, point)
        lost = cut_power(site.landing, site.journal)
        assert (lost > 0) == (point in ("inside write", "before fsync")), point
        recover_streams(site.landing, SOURCE, dict)
    collect_the_rest(site)
    assert_once(site, reference)


def collect_the_rest(site: Site, awaited: Sequence[Reading] = READINGS) -> None:
    site.publish()
    with site.collector() as process:
        site.wait_for(process, awaited)


def test_comparison_bites(tmp_path: Path, broker: Mosquitto, reference: dict[str, pl.DataFrame]) -> None:
    """The negative control: what was acknowledged is missed when a power cut takes it all the same."""
    site = Site(tmp_path, broker)
    site.publish(_AT_ONCE)
    kill(site, FORGETFUL)
    cut_power(site.landing, site.journal)
    recover_streams(site.landing, SOURCE, dict)
    collect_the_rest(site, READINGS[-1:])
    with pytest.raises(AssertionError, match=r"silver\.sensor_readings"):
        assert_once(site, reference)


def test_broker_is_restarted(tmp_path: Path, broker: Mosquitto, reference: dict[str, pl.DataFrame]) -> None:
    site = Site(tmp_path, broker)
    site.publish(150)
    with site.collector() as process:
        wait_until(lambda: sealed_segments(site.landing, SOURCE))
        broker.stop()
        broker.start()
        site.publish()
        site.wait_for(process)
    assert_once(site, reference)


def test_disk_is_full_in_landing(tmp_path: Path, broker: Mosquitto, reference: dict[str, pl.DataFrame]) -> None:
    """The kernel refuses every write: nothing is acknowledged, and all of it comes when there is room."""
    site = Site(tmp_path, broker)
    site.publish()
    with site.collector(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))) as process:
        assert process.stderr is not None
        while b"nothing is acknowledged until it is mended" not in process.stderr.readline():
            assert process.poll() is None
        assert not site.landed()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (-1, -1))
        site.wait_for(process)
    assert assert_once(site, reference) == 0, "on one connection the broker sends nothing twice"
