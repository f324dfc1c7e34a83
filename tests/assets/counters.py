"""Rows of silver.snmp_samples as an agent with interfaces gives them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import polars as pl

from assets.silver.snmp_samples import snmp_samples

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
Sample = tuple[float, str, int | str]


def frame(samples: Iterable[Sample], device: str = "sw1:161", index: int = 3) -> pl.DataFrame:
    """Rows of silver.snmp_samples from (seconds after noon, object, value)."""
    rows = []
    for seconds, name, value in samples:
        is_system = name == "sysUpTime"
        number = value if isinstance(value, int) else None
        rows.append(
            {
                "device_id": device,
                "metric_oid": f"{name}.{0 if is_system else index}",
                "object_name": name,
                "mib_module": "SNMPv2-MIB" if is_system else "IF-MIB",
                "instance_identifier": "0" if is_system else str(index),
                "instance": "0" if is_system else str(index),
                "data_type": "Counter32" if name in ("ifInOctets", "ifInErrors") else "Counter64",
                "metric_value": str(value),
                "numeric_value": None if number is None else float(number),
                "counter_value": number if "Octets" in name or "Errors" in name else None,
                "poll_id": str(int(seconds) // 2),
                "observed_at": T0 + timedelta(seconds=seconds),
            }
        )
    return pl.DataFrame(rows, schema={n: t for n, t in snmp_samples.schema.items() if n in rows[0]})


def of_two(samples: Iterable[Sample]) -> pl.DataFrame:
    """The same of two interfaces, polled together: the second one's samples are at odd seconds."""
    parts: tuple[list[Sample], list[Sample]] = ([], [])
    for sample in samples:
        parts[int(sample[0]) % 2].append(sample)
    return pl.concat([frame(part, index=index) for index, part in enumerate(parts, 3) if part])
