"""``secchi collect`` on one core against thousands of agents: cycles missed, their time, CPU and memory."""

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks.snmp_agents import GETS, OIDS, USER, WALK, address, is_dead, is_v3
from pipelines.collect import snmp, snmp_polls
from resources.landing import read_segment, sealed_segments
from tests.resources.snmpd import free_udp_port

INTERVAL = 10
_TICKS = os.sysconf("SC_CLK_TCK")
_CONFIG = f"""
[snmp]
target_files = ["targets.csv"]
[snmp.auths.public]
[snmp.auths.strong]
version = "3"
user = "{USER.name}"
auth_protocol = "{USER.auth_protocol}"
auth_password = {{env = "SECCHI_BENCH_AUTH"}}
priv_protocol = "{USER.priv_protocol}"
priv_password = {{env = "SECCHI_BENCH_PRIV"}}
[snmp.modules.bench]
get = {GETS}
walk = ["{WALK}"]
interval = {INTERVAL}
"""


def scale(targets: int, cycles: int) -> dict[str, str]:
    """Polls ``targets`` agents for ``cycles`` cycles after one to warm up; returns the figures of the closing line."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="secchi-snmp-") as name:
        folder, port = Path(name), free_udp_port()
        _write(folder, targets, port)
        agents = _start(["benchmarks.snmp_agents", "--port", str(port), "--targets", str(targets)], cores[-1])
        assert agents.stdout and agents.stdout.readline().strip() == "listening"
        collect = _start(["pipelines.cli", "--config", str(folder / "secchi.toml"), "collect"], cores[0], folder)
        try:
            time.sleep(INTERVAL * 1.5)
            began, cpu = time.time(), _cpu_seconds(collect.pid)
            time.sleep(INTERVAL * cycles)
            if collect.poll() is not None:
                raise SystemExit(f"scale: the collector has ended: {(folder / 'collect.log').read_text()[-500:]}")
            ended, cpu = time.time(), _cpu_seconds(collect.pid) - cpu
            rss = _peak_mib(collect.pid)
            collect.send_signal(signal.SIGTERM)
            collect.wait(30)
        finally:
            for process in (agents, collect):
                process.kill()
                process.wait()
        polls, varbinds = _landed(folder, snmp_polls.SOURCE), _landed(folder, snmp.SOURCE)
    return _figures(polls, varbinds, targets, (began, ended), cpu, rss)


def _write(folder: Path, targets: int, port: int) -> None:
    (folder / "secchi.toml").write_text(_CONFIG)
    with (folder / "targets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("host", "port", "auth", "modules"))
        for index in range(targets):
            writer.writerow((address(index), port, "strong" if is_v3(index) else "public", "bench"))


def _start(module: list[str], core: int, folder: Path | None = None) -> "subprocess.Popen[str]":
    log = (folder / "collect.log").open("w") if folder else None
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", *module],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "SECCHI_BENCH_AUTH": USER.auth_password, "SECCHI_BENCH_PRIV": USER.priv_password},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _landed(folder: Path, source: str) -> pl.DataFrame:
    segments = sealed_segments(folder / "data" / "landing", source)
    return pl.concat([pl.DataFrame(read_segment(segment.path)[0]) for segment in segments])


def _figures(
    polls: pl.DataFrame, varbinds: pl.DataFrame, targets: int, span: tuple[float, float], cpu: float, rss: float
) -> dict[str, str]:
    """A cycle lasts from when its slot began until its poll had ended; slots are those of the earliest start."""
    began, ended = (pl.lit(int(seconds * 1e6)).cast(pl.Datetime("us", "UTC")) for seconds in span)
    live = {f"{address(i)}:" for i in range(targets) if not is_dead(i)}
    within = polls.filter(pl.col("started_at").is_between(began, ended)).with_columns(
        host=pl.col("target").str.extract(r"^(.*:)"), offset=pl.col("started_at").cast(pl.Int64) % (INTERVAL * 10**6)
    )
    up = within.filter(pl.col("host").is_in(list(live)))
    lateness = (pl.col("offset") - pl.col("offset").min().over("target")) / 1e6
    cycle = up.select(lateness + pl.col("duration_seconds")).to_series()
    wanted = len(live) * int((span[1] - span[0]) / INTERVAL)
    missed = max(0, wanted - up.height) + up["missed"].sum()
    failed = up.filter(pl.col("error").is_not_null() | (pl.col("varbinds") != OIDS)).height
    seconds = span[1] - span[0]
    print(
        f"scale: {targets} targets ({len(live)} alive), {OIDS} OIDs each every {INTERVAL} s for {seconds:.0f} s: "
        f"{up.height} polls of {wanted}, {failed} of them not whole, {varbinds.height} varbinds landed in all"
    )
    quantiles = [cycle.quantile(q) or 0.0 for q in (0.5, 0.99)]
    print(f"scale: cycle p50 {quantiles[0]:.3f} s, p99 {quantiles[1]:.3f} s, CPU {cpu / seconds:.0%} of one core")
    return {
        "missed_cycles": str(int(missed + failed)),
        "cycle_p99_s": f"{quantiles[1]:.3f}",
        "rss_mib": f"{rss:.0f}",
    }
