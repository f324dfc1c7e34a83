"""An SNMP agent falls silent and comes back: its polls tell of it, and silver has each answered value once."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipelines.collect.snmp import SnmpCollector
from tests.collect.test_snmp import FAST, SYSTEM, config, landed
from tests.collect.test_snmp_targets import collect, polled
from tests.pipelines.plant import Plant
from tests.resources.snmpd import snmpd

MODULE = {"get": [f"{SYSTEM}.3.0"], "walk": [f"{SYSTEM}.9"], **FAST}
REST = {"modules": ["m"], "timeout": 1, "retries": 0}


def test_silent_agent_holds_no_other_and_is_seen(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "lake")
    root = plant.context.landing
    with snmpd(tmp_path / "talking") as talking, snmpd(tmp_path / "silent") as silent:
        made = config({"m": MODULE}, *({"port": port, **REST} for port in (talking, silent)), backoff=0.2)
        good, bad = (f"127.0.0.1:{port}" for port in (talking, silent))
        pid = int((tmp_path / "silent" / "pid").read_text())

        async def stop_and_go_on(collector: SnmpCollector) -> None:
            await polled(2)(collector)
            os.kill(pid, signal.SIGSTOP)
            try:
                while collector.status()[bad]["failed"] < 2:
                    await asyncio.sleep(0.01)
            finally:
                os.kill(pid, signal.SIGCONT)
            answered = collector.status()[bad]["answered"]
            while collector.status()[bad]["answered"] < answered + 2:
                await asyncio.sleep(0.01)

        collect(root, made, stop_and_go_on)
    varbinds = sorted((v["target"], v["poll_id"], v["oid"], v["received_at"]) for v in landed(root))
    plant.now = datetime.now(UTC)
    plant.drain()

    polls = plant.table("bronze.snmp_polls").sort("started_at")
    went = polls.filter(pl.col("target") == bad)
    assert went["is_up"].rle().struct.field("value").to_list() == [True, False, True]
    silence = went.filter(~pl.col("is_up"))["started_at"]
    meanwhile = polls.filter(pl.col("target") == good, pl.col("started_at").is_between(silence.min(), silence.max()))
    assert meanwhile["is_up"].all() and meanwhile.height > 5

    samples = plant.table("silver.snmp_samples")
    assert sorted(samples.select("device_id", "poll_id", "metric_oid", "observed_at").rows()) == varbinds
    assert samples.filter(pl.col("poll_id").is_in(went.filter(~pl.col("is_up"))["poll_id"].implode())).is_empty()
    assert plant.table("quarantine.records").is_empty()
