"""Every benchmark that needs no service runs, small, and ends with its line of figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["chain", "--rows", "6000"], r"chain: rows=6000 .* rows_equal=true"),
        (["commits", "--base", "9000", "--batches", "2"], r"commits: first50_ms=\S+ .* disk_ratio=\S+"),
        (["windows", "--rows", "6000", "--batch", "3000", "--history", "6000"], r"windows: .* rows_equal=true"),
        (["joins", "--rows", "6000"], r"join: rows=6000 .* rows_equal=true"),
        (["long_windows", "--history", "6000", "--batch", "1000"], r"long_windows: .*"),
        (
            [
                *("snmp", "--sections", "decode,fuzz,rates", "--varbinds", "6000", "--datagrams", "400"),
                *("--answers", "40", "--polled", "3", "--history", "2"),
            ],
            r"snmp: .* rates_cycle_cpu_s=\S+ rates_growth=\S+",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_small_run_ends_with_its_figures(arguments: list[str], line: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{arguments[0]}", *arguments[1:]]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(line, run.stdout.splitlines()[-1])
