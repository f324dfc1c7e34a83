"""make bench-machine: machine states at QoS 2 from a sender through broker and collector to silver, nothing missing.

The sender, a real Mosquitto and the collector are processes of their own, this one carries micro-batches. The clock of
the chain runs from the sender's start to the silver commit that completes it; the peer is the sender's own time: a
chain that keeps up has a ratio near 1. Afterwards every value is compared with what was sent.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from pipelines.collect.instances import Instance
from pipelines.config import load_config
from pipelines.context import Context, open_context
from pipelines.micro_batch import MicroBatches
from pipelines.simulate.broker import broker_command, wait_for_port
from pipelines.simulate.machine import RECORDED, states

SILVER = "silver.machine_readings"
_PYTHON = [sys.executable, "-W", "ignore", "-m"]
_KEY = ["thing", "name", "observed_ms"]
_STALLED_SECONDS = 60.0


@contextmanager
def running(command: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A child process, ended with SIGTERM."""
    with log.open("ab") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def expected(count: int, seed: int) -> pl.DataFrame:
    """What was sent, one row a value, read in the plainest way."""
    things, names, times, values = [], [], [], []
    for text in states(count, seed):
        state = json.loads(text)
        thing, at = state.pop("Thing"), state.pop("Timestamp")
        del state["id"]
        for name, value in state.items():
            things.append(thing)
            names.append(name)
            times.append(at)
            values.append(float(value))
    return pl.DataFrame({"thing": things, "name": names, "observed_ms": times, "sent": values})


def stored(context: Context) -> pl.DataFrame:
    """What silver holds, in the same columns."""
    rows = context.lakehouse.read(context.tables[SILVER].stored)
    name = pl.concat_str("quantity", "axis", separator="_").alias("name")
    return rows.select("thing", name, pl.col("observed_at").dt.epoch("ms").alias("observed_ms"), "value")


def is_subscribed(lakehouse: Path) -> bool:
    """Whether the collector has its subscription."""
    path = Instance(lakehouse).status_path
    return path.exists() and bool(json.loads(path.read_text()).get("mqtt", {}).get("hall", {}).get("connected"))


def carry(
    batches: MicroBatches, context: Context, sender: "subprocess.Popen[bytes]", values: int
) -> tuple[float, float]:
    """Carries until silver has so many values; returns when the sender had ended and when silver was complete."""
    ended = moved = 0.0
    rows, began = 0, time.monotonic()
    while rows < values:
        if not ended and sender.poll() is not None:
            ended = time.monotonic()
        results = batches.run_once()
        if errors := [r.error for r in results if r.error]:
            raise SystemExit(f"machine: {errors[0]}")
        rows += sum(r.rows for r in results if r.table == SILVER)
        moved = time.monotonic() if any(r.did_work for r in results) else moved
        if ended and time.monotonic() - max(moved, ended, began) > _STALLED_SECONDS:
            break
    return ended or time.monotonic(), moved


def run(folder: Path, count: int, qos: int, port: int) -> tuple[float, float, pl.DataFrame, int]:
    """Returns the seconds of the sender and of the chain, the stored values, and the bronze rows."""
    config_file = folder / "secchi.toml"
    broker = f'[[mqtt]]\nname = "hall"\nport = {port}\ntopics = ["machine/#"]\nqos = {qos}\n'
    config_file.write_text(f'[lakehouse]\npath = "lake"\n{broker}')
    context = open_context(load_config(config_file))
    batches = MicroBatches(context)
    batches.drain()
    values = expected(count, 0).height
    log = folder / "log"
    sending = [*_PYTHON, "pipelines.cli", "simulate", "machine", "--broker", f"127.0.0.1:{port}", "--qos", str(qos)]
    collecting = [*_PYTHON, "pipelines.cli", "--config", str(config_file), "collect"]
    with running(broker_command(folder / "broker", port), log), running(collecting, log):
        wait_for_port("127.0.0.1", port, 10)
        while not is_subscribed(folder / "lake"):
            time.sleep(0.1)
        began = time.monotonic()
        with running([*sending, "--messages", str(count)], log) as sender:
            ended, complete = carry(batches, context, sender, values)
    bronze = context.lakehouse.read(context.tables["bronze.mqtt_messages"].stored, columns=["sequence"]).height
    return ended - began, complete - began, stored(context), bronze


def main() -> None:
    """Prints the closing line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--messages", type=int, default=RECORDED)
    options.add_argument("--qos", type=int, choices=(0, 1, 2), default=2)
    options.add_argument("--port", type=int, default=18_899, help="free port for the broker")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="secchi-machine-"))
    try:
        sender, chain, rows, bronze = run(folder, given.messages, given.qos, given.port)
    finally:
        shutil.rmtree(folder)
    sent = expected(given.messages, 0)
    lost = sent.join(rows, on=_KEY, how="anti").height
    duplicated = rows.height - rows.select(_KEY).n_unique()
    equal = sent.join(rows, on=_KEY).filter(pl.col("sent") == pl.col("value")).height
    print(
        f"machine: messages={given.messages} qos={given.qos} values={sent.height} bronze={bronze} silver={rows.height} "
        f"lost={lost} duplicated={duplicated} equal={equal} sender_s={sender:.2f} chain_s={chain:.2f} "
        f"ratio={chain / sender:.2f} per_second={given.messages / chain:.0f}"
    )
    if lost or duplicated or equal != sent.height:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
