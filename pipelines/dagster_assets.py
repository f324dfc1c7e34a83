"""Every asset that Dagster shows, built from the declarations. No table is named here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
import pyarrow as pa

from assets.table import Column, Table
from data_quality.contract import contract_description
from pipelines.config import Config
from pipelines.micro_batch_run import CONTRACT, asset_key, carry, has_contract
from pipelines.run_process import OWNER, UPKEEP, open_run
from pipelines.training import model_key

if TYPE_CHECKING:
    from pipelines.maintenance import Upkeep

MICRO_BATCH = "micro_batch"
"""Name of the job and of the pool that keep the streaming tables up."""

MAINTENANCE = dg.AssetKey(["ops", "maintenance"])

_MOST_KINDS = 10
_SHORTEST_FRESHNESS = timedelta(seconds=60)
_SHOWN_TARGETS = 200


def streaming(tables: Mapping[str, Table]) -> list[Table]:
    """The tables that micro-batches keep up, upstream first; built-in reference tables are among them."""
    return [t for t in tables.values() if t.step]


def landing_key(table: Table) -> dg.AssetKey:
    """The landing source of a bronze table."""
    return dg.AssetKey(["landing", table.name])


def table_spec(table: Table, deps: Iterable[dg.AssetKey] = ()) -> dg.AssetSpec:
    """A table as an asset: what an operator reads about it in the UI."""
    return dg.AssetSpec(
        asset_key(table.identifier),
        deps=list(deps),
        description=table.description,
        kinds=set(table.kinds[:_MOST_KINDS]),
        owners=[table.owner],
        group_name=table.layer,
        freshness_policy=_freshness(table),
        metadata={
            "dagster/table_name": table.identifier,
            "dagster/column_schema": _column_schema(table),
            "dagster/column_lineage": _column_lineage(table),
            "key": ", ".join(table.key),
        },
    )


def _freshness(table: Table) -> dg.FreshnessPolicy | None:
    if table.freshness is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=max(table.freshness, _SHORTEST_FRESHNESS))


def _column_schema(table: Table) -> dg.TableSchema:
    types = table.schema
    return dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, _type_name(types[c.name]), c.description, _constraints(table, c))
            for c in table.columns
        ],
        constraints=dg.TableConstraints(other=contract_description(table)[:1]),
    )


def _constraints(table: Table, column: Column) -> dg.TableColumnConstraints:
    bounds = [f">= {column.minimum}" if column.minimum is not None else None]
    bounds += [f"<= {column.maximum}" if column.maximum is not None else None]
    is_unique = table.key == (column.name,)
    return dg.TableColumnConstraints(not column.required, is_unique, [bound for bound in bounds if bound])


def _type_name(dtype: pl.DataType) -> str:
    return f"timestamp[us, {dtype.time_zone}]" if isinstance(dtype, pl.Datetime) else str(dtype).lower()


def _column_lineage(table: Table) -> dg.TableColumnLineage:
    deps = {c.name: [_column_dep(name) for name in c.lineage] for c in table.columns if c.lineage}
    if table.landing is not None:
        landed = landing_key(table)
        deps |= {f.name: [dg.TableColumnDep(landed, f.name)] for f in table.landing if f.name in table.schema}
    return dg.TableColumnLineage(deps)


def _column_dep(name: str) -> dg.TableColumnDep:
    identifier, _, column = name.rpartition(".")
    return dg.TableColumnDep(asset_key(identifier), column)


def _upstream(table: Table) -> Iterator[dg.AssetKey]:
    yield from (asset_key(t.identifier) for t in (*table.inputs, *table.references))
    if table.landing is not None:
        yield landing_key(table)
    if table.model is not None:
        yield model_key(table.model)


def micro_batch_assets(config: Config, tables: Mapping[str, Table]) -> dg.AssetsDefinition:
    """The streaming tables: one op that carries micro-batches through all of them, or through a chosen subset."""
    carried = {asset_key(t.identifier): t.identifier for t in streaming(tables)}

    @dg.multi_asset(
        name="carry",
        specs=[table_spec(t, _upstream(t)) for t in streaming(tables)],
        check_specs=[_contract_spec(t) for t in streaming(tables) if has_contract(t)],
        can_subset=True,
        pool=MICRO_BATCH,
        description="Carries what landed through every layer, micro-batch by micro-batch, until nothing comes.",
    )
    def micro_batch(context: dg.AssetExecutionContext) -> Iterator[Any]:
        selected = {carried[key] for key in context.selected_asset_keys}
        only = None if len(selected) == len(carried) else selected
        with open_run(config, context.instance, context.run) as lakehouse:
            yield from carry(context, lakehouse, only)

    return micro_batch


def _contract_spec(table: Table) -> dg.AssetCheckSpec:
    if table.layer == "reference":
        text = (
            "The side input can be read, has the declared columns and types, and each key once. If not, the reason "
            "stands here and the last good version goes on serving."
        )
    elif table.layer == "bronze":
        text = "Every landing segment is whole and is the one that was committed; another is quarantined as it is."
    else:
        rules = "\n".join(f"- {line}" for line in contract_description(table))
        text = f"Judged row by row before each commit; a row that breaks it is quarantined.\n\n{rules}"
    return dg.AssetCheckSpec(CONTRACT, asset=asset_key(table.identifier), description=text)


def side_specs(tables: Mapping[str, Table]) -> list[dg.AssetSpec]:
    """The tables that are not kept up by micro-batches themselves: side outputs, and reference data of others."""
    kept_up = {t.identifier for t in streaming(tables)}
    decoded = [asset_key(t.identifier) for t in tables.values() if t.step == "decode"]
    # Watermarks come from the commits of decoded rows, and so do most quarantined records.
    fed = {"ops.watermarks": decoded, "quarantine.records": decoded}
    return [
        table_spec(t, (*fed.get(t.identifier, ()), *(asset_key(i.identifier) for i in t.inputs)))
        for t in tables.values()
        if t.identifier not in kept_up
    ]


def outside_specs(config: Config, tables: Mapping[str, Table]) -> list[dg.AssetSpec]:
    """What stands before bronze: the senders of the configuration, and landing."""
    senders = _senders(config)
    specs = [spec for _, spec in senders]
    for table in tables.values():
        if table.landing is None:
            continue
        deps = [spec.key for protocol, spec in senders if protocol in table.kinds]
        specs.append(_landing_spec(table, table.landing, deps))
    return specs


def _landing_spec(table: Table, schema: pa.Schema, deps: list[dg.AssetKey]) -> dg.AssetSpec:
    columns = [dg.TableColumn(f.name, str(f.type)) for f in schema]
    return dg.AssetSpec(
        landing_key(table),
        deps=deps,
        description=f"What the collectors have received and {table.identifier} has not committed yet: Arrow segments, "
        "durable before the sender has its acknowledgement.",
        kinds={"arrow"},
        owners=[OWNER],
        group_name="landing",
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
    )


def _senders(config: Config) -> list[tuple[str, dg.AssetSpec]]:
    """Protocol and asset of each sender; all SNMP targets are one asset, as there may be thousands."""
    brokers = [
        ("mqtt", _sender(["mqtt", b.name], "MQTT broker.", {"address": f"{b.host}:{b.port}", "topics": list(b.topics)}))
        for b in config.mqtt
    ]
    targets = [target.device_id for target in config.snmp.targets]
    facts = {"targets": len(targets), "device_ids": targets[:_SHOWN_TARGETS]}
    return [*brokers, ("snmp", _sender(["snmp"], "SNMP agents that are polled.", facts))] if targets else brokers


def _sender(name: list[str], description: str, metadata: Mapping[str, Any]) -> dg.AssetSpec:
    key = dg.AssetKey(["sender", *name])
    return dg.AssetSpec(
        key, description=description, kinds={name[0]}, owners=[OWNER], group_name="sender", metadata=metadata
    )


def maintenance_asset(config: Config) -> dg.AssetsDefinition:
    """Upkeep of the tables as an asset, so that what it did can be plotted."""

    @dg.asset(
        key=MAINTENANCE,
        description="Upkeep of the tables: small files are merged, old rows and snapshots dropped, orphans swept.",
        kinds={"iceberg", "ops"},
        owners=[OWNER],
        group_name="ops",
        pool=UPKEEP,
    )
    def maintenance(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from pipelines.maintenance import Upkeep, maintain

        def say(report: Upkeep) -> None:
            context.log.info(f"{report}")

        with open_run(config, context.instance, context.run) as lakehouse:
            reports = maintain(lakehouse, say)
        metadata = _maintenance_metadata(reports)
        if errors := [f"{r.table}: {r.error}" for r in reports if r.error]:
            context.log_event(dg.AssetMaterialization(MAINTENANCE, metadata=metadata))
            raise dg.Failure("; ".join(errors), allow_retries=False)
        return dg.MaterializeResult(metadata=metadata)

    return maintenance


def _maintenance_metadata(reports: Sequence["Upkeep"]) -> dict[str, Any]:
    columns = ("table", "files_merged", "files_dropped", "snapshots_expired", "files_deleted", "error")
    rows = [{c: getattr(r, c) if c != "error" else r.error or "" for c in columns} for r in reports]
    sums = {c: sum(getattr(r, c) for r in reports) for c in columns[1:-1]}
    return {**sums, "tables": dg.MetadataValue.table([dg.TableRecord(row) for row in rows], _upkeep_schema(columns))}


def _upkeep_schema(columns: Sequence[str]) -> dg.TableSchema:
    # Dagster cannot infer the columns of a table without rows.
    text = ("table", "error")
    return dg.TableSchema([dg.TableColumn(c, "string" if c in text else "int") for c in columns])
