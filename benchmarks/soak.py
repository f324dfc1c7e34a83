"""make soak: readings at a steady rate while processes are killed, the broker is stopped and connections are cut.

Sender → Mosquitto → TCP proxy → collector → landing → Dagster's runs → silver. Every 5 to 20 seconds something is
killed with SIGKILL (collector, run worker, daemon), the broker is restarted or frozen, or the proxy resets, delays or
stalls.
In the end every message that the broker acknowledged to the sender stands once in silver. A fault's recovery time is
the time until silver holds all that had been sent when the fault was over.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.mqtt import free_port
from benchmarks.readings import SENSORS, reading
from benchmarks.soak_proxy import Proxy
from pipelines.config import Config, load_config
from pipelines.context import Context, open_context
from pipelines.services import stages
from pipelines.simulate.broker import broker_command, wait_for_port
from pipelines.simulate.sender import Sender, Target
from pipelines.up import Supervisor

SILVER = "silver.sensor_readings"
_DRAIN_SECONDS = 300.0


def send(port: int, rate: int, start_ms: int, acknowledged: Any, stop: Any) -> None:
    """Publishes readings at a rate until ``stop``, and then until the broker has acknowledged each."""

    def count(_: int) -> None:
        acknowledged.value += 1

    sender: Sender[int] = Sender(Target(port=port), threading.Event(), count, lambda: None)
    began, number = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - began) * rate)
        while number < due:
            # No two readings of a sensor have the same time.
            at_ms = start_ms + number // SENSORS * SENSORS * 1000 // rate
            topic, payload = reading(number, at_ms, number % 1000 / 8)
            sender.publish(topic, payload.encode(), number)
            number += 1
        sender.poll(0.01)
    while sender.unacknowledged:
        sender.poll(0.1)
    sender.close()


@dataclass
class Fault:
    """What was done, when, and how many readings had been sent when it was over."""

    name: str
    at: float
    sent: int
    recovered: float | None = None


class Broker:
    """Mosquitto without limits; ``restart`` is graceful, because a killed one forgets what it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = broker_command(self._folder, self.port)
        if Path(command[0]).name != "mosquitto":
            raise SystemExit("soak: mosquitto is not installed")
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for_port("127.0.0.1", self.port, 30)
        return process

    def restart(self, pause: float) -> None:
        """SIGTERM, a pause, and a new process with what the old one has stored."""
        self.stop()
        time.sleep(pause)
        self.process = self._start()

    def freeze(self, pause: float) -> None:
        """SIGSTOP for a while."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Soak:
    """The running system and what can be done to it."""

    def __init__(self, folder: Path, seed: int, every: tuple[float, float]) -> None:
        self.random, self._every = random.Random(seed), every
        self.broker = Broker(folder / "broker")
        self.proxy = Proxy(self.broker.port)
        self.config_file = folder / "secchi.toml"
        self.config_file.write_text(
            '[lakehouse]\npath = "lake"\n\n[[mqtt]]\nname = "factory"\n'
            f'port = {self.proxy.port}\ntopics = ["factory_iot/#"]\nkeepalive = "5s"\nreconnect_max = "2s"\n'
        )
        self.config: Config = load_config(self.config_file)
        self.context: Context = open_context(self.config, "soak")
        self.supervisor = Supervisor(self.config.lakehouse.path / "logs", lambda line: None)
        self.faults: list[Fault] = []

    def start(self) -> None:
        """Starts collectors, code server and daemon; nobody looks at the web server."""
        for stage in stages(self.config, self.config_file, "127.0.0.1", free_port()):
            self.supervisor.start(*(child for child in stage if child.name != "web"))

    def rows(self) -> int:
        """Rows of silver, from its snapshot's summary."""
        stored = self.context.tables[SILVER].stored
        if not self.context.lakehouse.exists(stored):
            return 0
        snapshot = self.context.lakehouse.table(stored, refresh=True).current_snapshot()
        return int(snapshot.summary.get("total-records") or 0) if snapshot and snapshot.summary else 0

    @property
    def kinds(self) -> dict[str, Callable[[], None]]:
        """Every fault by its name."""
        return {
            "kill collector": lambda: self._kill("collect"),
            "kill run worker": self._kill_run_worker,
            "kill daemon": lambda: self._kill("daemon"),
            "restart broker": lambda: self.broker.restart(self.random.uniform(0.5, 2)),
            "freeze broker": lambda: self.broker.freeze(self.random.uniform(0.5, 4)),
            "reset connections": self.proxy.reset,
            "delay connections": self._delay,
            "stall connections": self._stall,
        }

    def _alive(self, name: str) -> int:
        while (pid := self.supervisor.pid(name)) is None:
            if not self.supervisor.wait(0.1):
                raise SystemExit("soak: ended by a signal")
        return pid

    def _kill(self, name: str) -> None:
        os.kill(self._alive(name), signal.SIGKILL)

    def _kill_run_worker(self) -> None:
        """Kills a process that carries a run: a child of the code server that came from a spawn."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for children in Path(f"/proc/{self._alive('code')}/task").glob("*/children"):
                for pid in map(int, children.read_text().split()):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
                        return
            self.supervisor.wait(0.1)
        raise SystemExit("soak: no run worker appeared within 60 s")

    def _delay(self) -> None:
        self.proxy.delay = self.random.uniform(0.05, 0.3)
        self.supervisor.wait(self.random.uniform(1, 4))
        self.proxy.delay = 0.0

    def _stall(self) -> None:
        self.proxy.stall(True)
        self.supervisor.wait(self.random.uniform(1, 8))
        self.proxy.stall(False)

    def warm_up(self) -> None:
        """Waits for the first readings in silver."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while not self.rows() and self.supervisor.wait(0.5):
            if time.monotonic() > deadline:
                raise SystemExit(f"soak: nothing in silver within {_DRAIN_SECONDS:g} s")

    def disturb(self, seconds: float, sent: Callable[[], int]) -> None:
        """Does every kind of fault once, then again in another order, until the time is over."""
        ending = time.monotonic() + seconds
        deck: list[str] = []
        while (
            self._watch(min(ending, time.monotonic() + self.random.uniform(*self._every))) and time.monotonic() < ending
        ):
            deck = deck or self.random.sample(sorted(self.kinds), len(self.kinds))
            name, at = deck.pop(), time.monotonic()
            self.kinds[name]()
            self.faults.append(Fault(name, at, sent()))
            print(f"{name} after {sent():,} readings", flush=True)

    def _watch(self, until: float) -> bool:
        """Keeps the system running, and notes which faults it is over; False when a signal asks for the end."""
        while True:
            rows = self.rows()
            for fault in self.faults:
                if fault.recovered is None and rows >= fault.sent:
                    fault.recovered = time.monotonic() - fault.at
                    print(f"  over {fault.name} after {fault.recovered:.1f} s", flush=True)
            if not self.supervisor.wait(0.5):
                return False
            if time.monotonic() >= until:
                return True

    def drain(self, sent: int) -> None:
        """Waits until silver has so many rows, or nothing has come for long."""
        moved, rows = time.monotonic(), -1
        while rows < sent and time.monotonic() - moved < _DRAIN_SECONDS and self._watch(time.monotonic() + 1):
            if (now := self.rows()) != rows:
                moved, rows = time.monotonic(), now
        self._watch(time.monotonic() + 5)  # what comes too much, comes now

    def stored(self) -> pl.DataFrame:
        """Sensor and time (ms) of every row of silver."""
        rows = self.context.lakehouse.read(self.context.tables[SILVER].stored, columns=["sensor_id", "observed_at"])
        return rows.select("sensor_id", at=pl.col("observed_at").dt.epoch("ms"))


def missing_and_repeated(stored: pl.DataFrame, sent: int, start_ms: int, rate: int) -> tuple[int, int, int]:
    """Unique, lost and duplicated readings, by what ``send`` made."""
    number = pl.int_range(sent, eager=True)
    at = start_ms + number // SENSORS * SENSORS * 1000 // rate
    want = pl.DataFrame({"sensor_id": 10_000 + number % SENSORS, "at": at})
    unique = stored.unique()
    missing = want.cast(unique.schema).join(unique, on=["sensor_id", "at"], how="anti")
    return unique.height, missing.height, stored.height - unique.height


@contextmanager
def sending(port: int, rate: int, start_ms: int) -> Iterator[tuple[Any, Callable[[], None]]]:
    """The sender, in a process of its own: the count of what the broker acknowledged, and what ends it in order."""
    spawn = multiprocessing.get_context("spawn")
    acknowledged, stop = spawn.Value("l", 0), spawn.Event()
    process = spawn.Process(target=send, args=(port, rate, start_ms, acknowledged, stop), daemon=True)
    process.start()

    def finish() -> None:
        stop.set()
        process.join(120)
        if process.exitcode != 0:
            raise SystemExit(f"soak: the sender ended with {process.exitcode}")

    try:
        yield acknowledged, finish
    finally:
        process.kill()


def run(folder: Path, seconds: float, rate: int, seed: int, every: tuple[float, float]) -> bool:
    """Runs the soak, prints the closing line, and returns whether nothing was lost or duplicated."""
    soak = Soak(folder, seed, every)
    start_ms = int(time.time() * 1000)
    try:
        with soak.supervisor:
            soak.start()
            with sending(soak.broker.port, rate, start_ms) as (acknowledged, finish):
                soak.warm_up()
                soak.disturb(seconds, lambda: acknowledged.value)
                finish()
                sent = acknowledged.value
            soak.drain(sent)
            unique, lost, duplicated = missing_and_repeated(soak.stored(), sent, start_ms, rate)
    finally:
        soak.broker.stop()
    times = sorted(fault.recovered for fault in soak.faults if fault.recovered is not None)
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else sum(times)
    print(
        f"soak: sent={sent} unique={unique} lost={lost} duplicated={duplicated} "
        f"kills={len(soak.faults)} recovery_p99_s={p99:.1f}"
    )
    return (unique, lost, duplicated) == (sent, 0, 0) and len(times) == len(soak.faults)


def main() -> int:
    """Returns 0 if every reading stands once in silver."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--duration", type=float, default=600.0, help="seconds")
    options.add_argument("--rate", type=int, default=5_000, help="readings a second")
    options.add_argument("--every", type=float, nargs=2, default=(5.0, 20.0), help="seconds between faults")
    options.add_argument("--seed", type=int, default=random.randrange(10_000))
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="secchi-soak-"))
    print(f"{chosen.duration:g} s at {chosen.rate} readings a second, seed {chosen.seed}", flush=True)
    is_good = run(folder, chosen.duration, chosen.rate, chosen.seed, tuple(chosen.every))
    if is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"what there is stays in {folder}", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
