"""make bench-mqtt: the MQTT collector beside mosquitto_sub, on a real Mosquitto.

QoS 1, QoS 2, shared: a persistent session is filled first; the clock runs from CONNECT to the last acknowledgement.
QoS 0: the sender sends live at its full rate; the clock runs from its first message. The collector has fsynced every
message in landing when the clock stops; mosquitto_sub writes to a file. Unique rows are checked on both sides.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mqtt_sender import PAYLOAD_BYTES, payload, send
from pipelines.collect.group_commit import GroupCommit, OnDurable
from pipelines.collect.mqtt import RECORD, SOURCE, MqttCollector
from pipelines.settings.mqtt import MqttBroker
from pipelines.simulate.broker import wait_for_port
from resources.landing import LandingLimits, LandingStream, read_segment, sealed_segments

SETTINGS = ("max_queued_messages 0", "persistence false", "allow_anonymous true")
FILTER, SHARED = "bench/#", "$share/group/bench/#"
_PATIENCE = 300.0


@dataclass
class Measured:
    """Seconds from the first CONNECT or message to the last acknowledgement; the rest is the collector's alone."""

    seconds: float
    cpu_seconds: float = 0.0
    p99_ms: float = 0.0
    rss_mib: float = 0.0


class TimedCommit(GroupCommit):
    """Notes how long each record took from being received to being durable."""

    def __init__(self, stream: LandingStream) -> None:
        super().__init__(stream)
        self.waited: list[tuple[float, int]] = []

    def put_all(
        self, columns: Sequence[Sequence[Any]], on_durable: OnDurable | None = None, more_bytes: int = 0
    ) -> None:
        """Adds records that were read together."""
        came, count = time.monotonic(), len(columns[0])

        def told() -> None:
            self.waited.append((time.monotonic() - came, count))
            if on_durable:
                on_durable()

        super().put_all(columns, told, more_bytes)

    def p99_ms(self) -> float:
        """99 % of the records were durable within this time."""
        left = sum(count for _, count in self.waited) / 100
        for seconds, count in sorted(self.waited, reverse=True):
            left -= count
            if left <= 0:
                return seconds * 1000
        return 0.0


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def broker(folder: Path, window: int) -> Iterator[int]:
    """Runs a fresh Mosquitto; yields its port."""
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", f"max_inflight_messages {window}", *SETTINGS]
    if os.geteuid() == 0:
        lines.append("user root")
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if binary is None:
        raise SystemExit("bench-mqtt: mosquitto is not installed")
    process = subprocess.Popen([binary, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    try:
        wait_for_port("127.0.0.1", port, 10)
        yield port
    finally:
        process.kill()
        process.wait()


def make_sessions(port: int, clients: Sequence[str], topic: str, qos: int) -> None:
    """Subscribes each client in a persistent session and leaves."""
    for client in clients:
        subprocess.run(_sub(port, client, topic, qos, "-E"), check=True)


def _sub(port: int, client: str, topic: str, qos: int, *more: str) -> list[str]:
    return ["mosquitto_sub", "-p", str(port), "-i", client, "-c", "-q", str(qos), "-t", topic, *more]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench-mqtt: not finished within {_PATIENCE:g} s")
        time.sleep(0.002)


def _checked(numbers: set[bytes], count: int, who: str) -> None:
    if numbers != {payload(number) for number in range(count)}:
        raise SystemExit(f"bench-mqtt: {who} has {len(numbers)} unique messages of {count}")


def run_peer(folder: Path, port: int, clients: Sequence[str], topic: str, qos: int, count: int) -> Measured:
    """mosquitto_sub: one process a client, each writing to a file."""
    paths = [folder / f"{client}.txt" for client in clients]
    files = [path.open("wb") for path in paths]
    began = time.monotonic()
    pairs = zip(clients, files, strict=True)
    processes = [subprocess.Popen(_sub(port, client, topic, qos), stdout=file) for client, file in pairs]
    if not qos:
        time.sleep(0.5)
        began = _send_live(port, count)
    _until(lambda: sum(path.stat().st_size for path in paths) >= count * (PAYLOAD_BYTES + 1))
    seconds = time.monotonic() - began
    for process, file in zip(processes, files, strict=True):
        process.terminate()
        process.wait()
        file.close()
    _checked({line for path in paths for line in path.read_bytes().splitlines()}, count, "mosquitto_sub")
    return Measured(seconds)


def _send_live(port: int, count: int) -> float:
    began = time.monotonic()
    threading.Thread(target=send, args=(port, count, 0), daemon=True).start()
    return began


def collect(root: Path, port: int, client: str, topic: str, qos: int, durable: Any, stop: Any, results: Any) -> None:
    """One collector process, until ``stop``; ``durable`` counts what it has acknowledged."""

    async def run() -> tuple[float, float, Measured]:
        landing = TimedCommit(LandingStream(root, SOURCE, client, RECORD, LandingLimits()))
        config = MqttBroker(name="bench", port=port, client_id=client, topics=[topic], qos=qos)  # type: ignore[arg-type]
        collector = MqttCollector(config, landing, root)
        committing, ending = asyncio.create_task(landing.run()), asyncio.Event()
        began, cpu = time.monotonic(), time.process_time()
        collecting = asyncio.create_task(collector.run(ending))
        ended, used = began, 0.0
        while not stop.is_set():
            if durable.value != landing.durable:
                ended, used, durable.value = time.monotonic(), time.process_time() - cpu, landing.durable
            await asyncio.sleep(0.002)
        ending.set()
        await collecting
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        await landing.aclose()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return began, ended, Measured(0.0, used, landing.p99_ms(), peak)

    results.put(asyncio.run(run()))


def run_collectors(folder: Path, port: int, clients: Sequence[str], topic: str, qos: int, count: int) -> Measured:
    """The collector: one process a client, each with a landing of its own."""
    spawn = multiprocessing.get_context("spawn")
    stop, results = spawn.Event(), spawn.Queue()
    roots = [folder / client for client in clients]
    counters = [spawn.Value("l", 0) for _ in clients]
    processes = [
        spawn.Process(target=collect, args=(root, port, client, topic, qos, counter, stop, results))
        for root, client, counter in zip(roots, clients, counters, strict=True)
    ]
    for process in processes:
        process.start()
    sent = 0.0
    if not qos:
        _until(lambda: all((root / "mqtt-bench.subscriptions.json").exists() for root in roots))
        time.sleep(0.5)
        sent = _send_live(port, count)
    _until(lambda: sum(counter.value for counter in counters) >= count)
    stop.set()
    measured = [results.get() for _ in processes]
    for process in processes:
        process.join()
    landed = (read_segment(s.path)[0]["payload"].to_pylist() for root in roots for s in sealed_segments(root, SOURCE))
    _checked({message for segment in landed for message in segment}, count, "the collector")
    seconds = max(ended for _, ended, _ in measured) - (sent or min(began for began, _, _ in measured))
    return Measured(
        seconds,
        sum(m.cpu_seconds for _, _, m in measured),
        max(m.p99_ms for _, _, m in measured),
        max(m.rss_mib for _, _, m in measured),
    )


def compare(
    name: str, count: int, qos: int, rounds: int, *, window: int = 1000, clients: Sequence[str] = ("one",)
) -> Measured:
    """Runs both sides in turn, each on a fresh broker, takes the best round of each, and prints a line.

    The ratio is in ``seconds`` of the result.
    """
    topic = SHARED if len(clients) > 1 else FILTER
    sides: list[list[Measured]] = [[], []]
    for side, run in [(0, run_peer), (1, run_collectors)] * rounds:
        folder = Path(tempfile.mkdtemp(prefix="secchi-bench-mqtt-"))
        try:
            with broker(folder, window) as port:
                if qos:
                    make_sessions(port, clients, topic, qos)
                    send(port, count, qos)
                sides[side].append(run(folder, port, clients, topic, qos, count))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    peer, ours = (min(rounds, key=lambda measured: measured.seconds) for rounds in sides)
    ratio = peer.seconds / ours.seconds
    print(
        f"{name:<28}{count / peer.seconds:>12,.0f}{count / ours.seconds:>12,.0f}{ratio:>8.2f}"
        f"{ours.cpu_seconds / count * 1e6:>8.1f}{ours.p99_ms:>9.1f}{ours.rss_mib:>8.0f}",
        flush=True,
    )
    return Measured(ratio, ours.cpu_seconds / count * 1e6, ours.p99_ms, ours.rss_mib)


def main() -> None:
    """Prints a table and the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=500_000)
    options.add_argument(
        "--rounds", type=int, default=1, help="the best of each side counts: the machine may be shared"
    )
    chosen = options.parse_args()
    count, rounds = chosen.messages, chosen.rounds
    print(f"{count} messages of {PAYLOAD_BYTES} bytes; broker: max_inflight_messages 1000, {', '.join(SETTINGS)}")
    print(f"{'':<28}{'sub msg/s':>12}{'ours msg/s':>12}{'ratio':>8}{'cpu/M s':>8}{'p99 ms':>9}{'MiB':>8}")
    qos1 = compare("QoS 1, filled session", count, 1, rounds)
    qos0 = compare("QoS 0, live", count, 0, rounds)
    qos2 = compare("QoS 2, filled session", count, 2, rounds)
    shared = compare("QoS 1, shared by two", count, 1, rounds, clients=("one", "two"))
    compare("QoS 1, window of 20", count, 1, rounds, window=20)
    print(
        f"mqtt: qos1_ratio={qos1.seconds:.2f} qos0_ratio={qos0.seconds:.2f} qos2_ratio={qos2.seconds:.2f} "
        f"shared_ratio={shared.seconds:.2f} cpu_s_per_million={qos1.cpu_seconds:.1f} "
        f"durable_p99_ms={qos1.p99_ms:.0f} rss_mib={qos1.rss_mib:.0f}"
    )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
