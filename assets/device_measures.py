"""What agents of many makers tell of their health, in the same measures: processor, memory, temperature, UPS.

Objects are known by their OIDs, so that no MIB has to be loaded for them.
"""

from collections.abc import Mapping

import polars as pl

CPU, TEMPERATURE, LOAD, BATTERY = "cpu_ratio", "temperature_celsius", "ups_load_ratio", "ups_battery_ratio"
MEMORY = "memory_used_ratio"

_DIRECT: Mapping[str, tuple[tuple[str, float, float], ...]] = {
    CPU: (
        ("1.3.6.1.2.1.25.3.3.1.2", 0.01, 0),  # hrProcessorLoad
        ("1.3.6.1.4.1.9.9.109.1.1.1.1.7", 0.01, 0),  # cpmCPUTotal1minRev
        ("1.3.6.1.4.1.2021.11.11", -0.01, 1),  # ssCpuIdle
    ),
    TEMPERATURE: (
        ("1.3.6.1.2.1.33.1.2.7", 1, 0),  # upsBatteryTemperature
        ("1.3.6.1.4.1.9.9.13.1.3.1.3", 1, 0),  # ciscoEnvMonTemperatureStatusValue
        ("1.3.6.1.4.1.2021.13.16.2.1.3", 0.001, 0),  # lmTempSensorsValue
        ("1.3.6.1.4.1.318.1.1.1.2.2.2", 1, 0),  # upsAdvBatteryTemperature
    ),
    LOAD: (
        ("1.3.6.1.2.1.33.1.4.4.1.5", 0.01, 0),  # upsOutputPercentLoad
        ("1.3.6.1.4.1.318.1.1.1.4.2.3", 0.01, 0),  # upsAdvOutputLoad
    ),
    BATTERY: (
        ("1.3.6.1.2.1.33.1.2.4", 0.01, 0),  # upsEstimatedChargeRemaining
        ("1.3.6.1.4.1.318.1.1.1.2.2.1", 0.01, 0),  # upsAdvBatteryCapacity
    ),
}
"""Measure to the objects that tell it, the preferred one first: OID, factor, what is added then."""

_STORAGE, _RAM = "1.3.6.1.2.1.25.2.3.1", "1.3.6.1.2.1.25.2.1.2"  # hrStorageEntry; hrStorageRam
_SENSOR, _CELSIUS, _UNITS, _IS_OK = "1.3.6.1.2.1.99.1.1.1", 8, 9, 1  # entPhySensorEntry and its enumerations
_POOLS, _UCD_MEMORY = "1.3.6.1.4.1.9.9.48.1.1.1", "1.3.6.1.4.1.2021.4"
_OBJECTS = [*(oid for told in _DIRECT.values() for oid, _, _ in told), _STORAGE, _POOLS, _UCD_MEMORY, _SENSOR]
_WINDOW = ["device_id", "window_start"]
_ROW = [*_WINDOW, "instance_id"]


def measures(samples: pl.DataFrame) -> pl.DataFrame:
    """One row a device and window that tells any measure; null for those that it does not tell.

    Loads are means, the temperature is the highest, the charge the lowest, memory the last one. Negative loads and
    charges, with which agents say that they do not know, are left out.

    Args:
        samples: rows of silver.snmp_samples in any order, with the ``window_start`` that they belong to.
    """
    # Most samples are of interfaces: they are not sorted.
    mine = samples.filter(pl.any_horizontal(_at(oid) for oid in _OBJECTS))
    told = mine.filter(pl.col("numeric_value").is_not_null() | pl.col("metric_value").eq(_RAM))
    ordered = told.sort(*_WINDOW, "observed_at", "metric_oid")
    temperatures = pl.concat([_direct(ordered, TEMPERATURE), _sensors(ordered)])
    found = [
        _of_the_preferred(_direct(ordered, CPU)).agg(pl.col("value").mean().alias(CPU)),
        _memory(ordered),
        temperatures.group_by(_WINDOW).agg(pl.col("value").max().alias(TEMPERATURE)),
        _of_the_preferred(_direct(ordered, LOAD)).agg(pl.col("value").mean().alias(LOAD)),
        _of_the_preferred(_direct(ordered, BATTERY)).agg(pl.col("value").min().alias(BATTERY)),
    ]
    joined = found[0]
    for each in found[1:]:
        joined = joined.join(each, on=_WINDOW, how="full", coalesce=True)
    return joined


def _at(oid: str) -> pl.Expr:
    return pl.col("metric_oid").str.starts_with(f"{oid}.")


def _direct(samples: pl.DataFrame, measure: str) -> pl.DataFrame:
    """``device_id, window_start, rank, value`` of a measure's objects; the preferred one has rank 0."""
    parts = [
        samples.filter(_at(oid)).select(
            *_WINDOW, rank=pl.lit(rank, pl.Int32), value=pl.col("numeric_value") * factor + added
        )
        for rank, (oid, factor, added) in enumerate(_DIRECT[measure])
    ]
    return pl.concat(parts).filter((pl.col("value") >= 0) | pl.lit(measure == TEMPERATURE))


def _of_the_preferred(values: pl.DataFrame) -> "pl.dataframe.group_by.GroupBy":
    """The values of the best object that the device tells, each window alone, in one order: sums stay the same."""
    return values.filter(pl.col("rank") == pl.col("rank").min().over(_WINDOW)).group_by(_WINDOW, maintain_order=True)


def _columns(samples: pl.DataFrame, entry: str, columns: Mapping[int, str]) -> pl.DataFrame:
    """Rows of a table as they were told last in the window; ``highest`` is the highest of a column."""
    found = samples.filter(_at(entry)).with_columns(
        pl.col("metric_oid")
        .str.slice(len(entry) + 1)
        .str.splitn(".", 2)
        .struct.rename_fields(["column", "instance_id"])
    )
    told = found.unnest("metric_oid").with_columns(pl.col("column").cast(pl.Int32, strict=False))

    def last(number: int, name: str) -> pl.Expr:
        of_column = pl.col("metric_value" if name == "kind" else "numeric_value").filter(pl.col("column") == number)
        return (of_column.max() if name == "highest" else of_column.last()).alias(name)

    return told.group_by(_ROW, maintain_order=True).agg(last(*each) for each in columns.items())


def _memory(samples: pl.DataFrame) -> pl.DataFrame:
    """Used by size of the RAM: hrStorageTable, else CISCO-MEMORY-POOL-MIB, else UCD-SNMP-MIB; the last ones told."""
    storage = _columns(samples, _STORAGE, {2: "kind", 5: "size", 6: "used"}).filter(pl.col("kind") == _RAM)
    pools = _columns(samples, _POOLS, {5: "used", 6: "free"})
    ucd = _columns(samples, _UCD_MEMORY, {5: "size", 6: "free"})
    parts = [
        storage.select(*_WINDOW, "used", "size", rank=pl.lit(0)),
        pools.select(*_WINDOW, "used", size=pl.col("used") + pl.col("free"), rank=pl.lit(1)),
        ucd.select(*_WINDOW, used=pl.col("size") - pl.col("free"), size="size", rank=pl.lit(2)),
    ]
    known = pl.concat(parts).drop_nulls().filter(pl.col("size") > 0)
    sums = _of_the_preferred(known).agg(pl.col("used", "size").sum())
    return sums.select(*_WINDOW, (sums["used"] / sums["size"]).alias(MEMORY))


def _sensors(samples: pl.DataFrame) -> pl.DataFrame:
    """Celsius of ENTITY-SENSOR-MIB (RFC 3433): value * 10^(3 (scale - units) - precision) of sensors that work."""
    names = {1: "type", 2: "scale", 3: "precision", 4: "highest", 5: "status"}
    found = _columns(samples, _SENSOR, names).filter(
        pl.col("type") == _CELSIUS, pl.col("status").fill_null(_IS_OK) == _IS_OK
    )
    power = 3 * (pl.col("scale").fill_null(_UNITS) - _UNITS) - pl.col("precision").fill_null(0)
    value = pl.col("highest") * pl.lit(10.0).pow(power)
    return found.select(*_WINDOW, rank=pl.lit(0, pl.Int32), value=value).drop_nulls()
