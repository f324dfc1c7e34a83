"""The parts of make bench-snmp behind the poller: traps into landing and silver, INFORMs, decoding.

Rates are of processor time of this process, so that they say what one core does whatever else runs; walls are told too.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from assets.bronze.snmp_traps import snmp_traps
from assets.bronze.snmp_varbinds import snmp_varbinds
from assets.silver.snmp_samples import snmp_samples
from assets.silver.trap_events import trap_events
from pipelines.bronze_step import run_bronze
from pipelines.collect import snmp
from pipelines.config import Config, LakehouseConfig
from pipelines.context import Context, open_context
from pipelines.silver_step import run_silver
from resources.landing import LandingLimits, LandingStream
from resources.snmp_ber import integer
from resources.snmp_notification import INFORM, V2_TRAP
from tests.collect.trap_collecting import Listening, listening
from tests.resources.test_snmp_notification import LINK_DOWN, pdu, v2c

Figures = dict[str, str]
_SENDER = """
import socket, sys, time
port, count, rate, datagram = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.connect(("127.0.0.1", port))
    began = time.perf_counter()
    for number in range(count):
        out.send(datagram)
        if number % 100 == 99:
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
"""


def traps(count: int) -> Figures:
    """Traps of one sender into landing, 20,000 a second; then from bronze to silver."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        landed, dropped, used, wall = asyncio.run(_land(root, count))
        print(
            f"traps: {landed} of {count} landed in {wall:.1f} s, {landed / used:.0f} a second of one core; "
            f"the kernel dropped {dropped}"
        )
        context = open_context(Config(lakehouse=LakehouseConfig(path=root)))
        run_bronze(context, snmp_traps)
        with processor() as decoding:
            rows = run_silver(context, trap_events).rows
    print(f"trap events: {rows} in silver, {rows / decoding[0]:.0f} a second of one core")
    return {"traps_per_s": f"{landed / used:.0f}", "trap_events_per_s": f"{rows / decoding[0]:.0f}"}


async def _land(root: Path, count: int) -> tuple[int, int, float, float]:
    datagram = v2c(pdu(V2_TRAP, *LINK_DOWN)).hex()
    async with listening(root, rate=0) as there:
        with processor() as used:
            command = [sys.executable, "-c", _SENDER, str(there.port), str(count), "20000", datagram]
            sender = await asyncio.create_subprocess_exec(*command)
            await sender.wait()
            await _settled(there)
        counters = there.counters
        return counters["landed"], counters["dropped_kernel"] or 0, used[0], used[1]


async def _settled(there: Listening) -> None:
    """Waits until all that arrived is durable and nothing more comes."""
    seen = -1
    while seen != there.counters["received"] or there.landing.durable < there.counters["landed"]:
        seen = there.counters["received"]
        await asyncio.sleep(0.2)


@contextmanager
def processor() -> Iterator[list[float]]:
    """Seconds of processor time of this process and of the wall clock, filled in at the end."""
    found = [0.0, 0.0]
    used, wall = time.process_time(), time.perf_counter()
    yield found
    found[:] = [time.process_time() - used, time.perf_counter() - wall]


def informs(count: int) -> Figures:
    """Round trips of INFORMs, one after another, each made durable by its own group commit."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = sorted(asyncio.run(_inform(Path(folder), count)))
    p50, p99 = (1000 * seconds[int(share * len(seconds))] for share in (0.5, 0.99))
    print(f"informs: round trip p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return {"inform_p99_ms": f"{p99:.1f}"}


async def _inform(root: Path, count: int) -> list[float]:
    loop, found = asyncio.get_running_loop(), []
    async with listening(root, rate=0) as there:
        for number in range(count):
            answered: asyncio.Future[None] = loop.create_future()
            transport, _ = await loop.create_datagram_endpoint(
                partial(_Answer, answered), remote_addr=("127.0.0.1", there.port)
            )
            began = time.perf_counter()
            transport.sendto(v2c(pdu(INFORM, *LINK_DOWN, request_id=number)))
            await asyncio.wait_for(answered, 30)
            found.append(time.perf_counter() - began)
            transport.close()
    return found


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, future: "asyncio.Future[None]") -> None:
        self._future = future

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._future.done():
            self._future.set_result(None)


def decode(count: int) -> Figures:
    """Varbinds of interface counters from bronze to silver.snmp_samples, the commit included."""
    with tempfile.TemporaryDirectory() as folder:
        context = open_context(Config(lakehouse=LakehouseConfig(path=Path(folder))))
        _land_varbinds(context, count)
        run_bronze(context, snmp_varbinds)
        with processor() as used:
            rows = run_silver(context, snmp_samples).rows
    print(
        f"decode: {rows} varbinds in {used[1]:.2f} s, {used[0]:.2f} s of processor time, {rows / used[1]:.0f} a second"
    )
    return {"decode_rows_per_s": f"{rows / used[1]:.0f}"}


def _land_varbinds(context: Context, count: int) -> None:
    """180 varbinds a device: ten interfaces with counters, gauges, names."""
    base = "1.3.6.1.2.1.2.2.1"
    objects = [(f"{base}.{n}", "Counter32") for n in (10, 11, 14, 16, 17, 20)]
    objects += [(f"{base}.{n}", "Integer32") for n in (1, 3, 7, 8)] + [(f"{base}.2", "OctetString")]
    objects += [(f"1.3.6.1.2.1.31.1.1.1.{n}", "Counter64") for n in (6, 10)]
    rng, at = random.Random(0), datetime(2026, 3, 1, tzinfo=UTC)
    stream = LandingStream(context.landing, snmp.SOURCE, "bench", snmp.RECORD, LandingLimits())
    names = snmp.RECORD.names
    records = []
    for number in range(count):
        device, place = divmod(number, 10 * len(objects))
        interface, what = divmod(place, len(objects))
        oid, wire_type = objects[what]
        octets = b"Gi0/%d" % interface if wire_type == "OctetString" else integer(rng.randrange(1, 2**31))[2:]
        known = {
            "target": f"10.0.{device // 250}.{device % 250}:161",
            "poll_id": str(device),
            "request_id": 1,
            "oid": f"{oid}.{interface + 1}",
            "wire_type": wire_type if wire_type != "Integer32" else "Gauge32",
            "value": octets,
            "received_at": at,
        }
        records.append([known.get(name) for name in names])
    stream.write(records)
    stream.seal()
    stream.close()
