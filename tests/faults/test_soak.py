"""A short form of make soak: every kind of fault once, and every reading once in silver."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl

from benchmarks.readings import SENSORS
from benchmarks.soak import missing_and_repeated
from tests.services import require_binary

ROOT = Path(__file__).resolve().parents[2]


def test_kills_restarts_and_cuts_lose_and_repeat_nothing() -> None:
    require_binary("mosquitto")
    options = ["--duration", "20", "--rate", "400", "--every", "1", "2", "--seed", "1"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.soak", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    last = done.stdout.splitlines()[-1]
    figures = dict(re.findall(r"(\w+)=([\d.]+)", last))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (figures["lost"], figures["duplicated"]) == ("0", "0"), last
    assert figures["unique"] == figures["sent"] and int(figures["sent"]) > 1000, last
    assert int(figures["kills"]) >= 6, last


def test_the_comparison_bites() -> None:
    """The negative control: a reading that is missing, and one that stands twice, are both seen."""
    rate, start_ms, sent = 1000, 1_760_000_000_000, 2 * SENSORS
    number = pl.int_range(sent, eager=True)
    whole = pl.DataFrame({"sensor_id": 10_000 + number % SENSORS, "at": start_ms + number // SENSORS * 300})
    assert missing_and_repeated(whole, sent, start_ms, rate) == (sent, 0, 0)
    assert missing_and_repeated(whole[1:], sent, start_ms, rate) == (sent - 1, 1, 0)
    assert missing_and_repeated(pl.concat([whole, whole[:1]]), sent, start_ms, rate) == (sent, 0, 1)
