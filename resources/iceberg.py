"""What is private or missing in pyiceberg, in one place; pinned, and held by tests/resources/test_iceberg.py."""

import io
import uuid
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestFile
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import TableUpdate
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles
from pyiceberg.utils.properties import property_as_int
from sqlalchemy import select

ROW_GROUP_ROWS = 65_536


def write_data_file(table: Table, frame: pl.DataFrame) -> DataFile:
    """Writes one Parquet file of rows that share a partition, with Iceberg field ids and statistics; returns its entry.

    The name is random, so a second attempt never meets the first one's file. Rows are written in the order given; small
    row groups let a reader skip by event time.
    """
    metadata = table.metadata
    schema = metadata.schema()
    buffer = io.BytesIO()
    frame.select(field.name for field in schema.fields).write_parquet(
        buffer,
        compression="zstd",
        compression_level=1,  # as small as the default within 2 %, and twice as fast to write
        row_group_size=ROW_GROUP_ROWS,
        arrow_schema=schema_to_pyarrow(schema),
    )
    location = f"{metadata.location}/data/{uuid.uuid4()}.parquet"
    with table.io.new_output(location).create() as stream:
        stream.write(buffer.getbuffer())  # type: ignore[arg-type]  # any buffer will do, and a copy would not
    buffer.seek(0)
    statistics = data_file_statistics_from_parquet_metadata(
        pq.read_metadata(buffer),
        stats_columns=compute_statistics_plan(schema, metadata.properties),
        parquet_column_mapping=parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=statistics.partition(metadata.spec(), schema),
        file_size_in_bytes=buffer.getbuffer().nbytes,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def metadata_location(catalog: SqlCatalog, layer: str, name: str) -> str | None:
    """Where the catalog says the table's metadata is: tells in a fraction of a millisecond whether to load it again."""
    query = select(IcebergTables.metadata_location).where(
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == layer,
        IcebergTables.table_name == name,
    )
    with catalog.engine.connect() as connection:
        return connection.scalar(query)


def any_metadata_location(catalog: SqlCatalog) -> str | None:
    """Where the metadata of some table is; None while there is no table."""
    with catalog.engine.connect() as connection:
        return connection.scalar(select(IcebergTables.metadata_location).limit(1))


class StagedTransaction(Transaction):
    """A transaction that works out its metadata once for each update it stages.

    pyiceberg applies all updates to a deep copy of the table's metadata whenever somebody looks: 17 times a commit.
    """

    _known: tuple[tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with the staged updates."""
        if self._known is None or self._known[0] is not self._updates:
            self._known = self._updates, super().table_metadata
        return self._known[1]


class ReplaceFiles(_OverwriteFiles):
    """An overwrite snapshot that keeps the manifest list short.

    pyiceberg's own overwrite carries along manifests that hold nothing but deleted entries, and never merges: the list
    would grow by two with every commit.
    """

    def __init__(self, transaction: Transaction, table: Table, summary: dict[str, str]) -> None:
        has_parent = transaction.table_metadata.current_snapshot() is not None
        super().__init__(
            operation=Operation.OVERWRITE if has_parent else Operation.APPEND,
            transaction=transaction,
            io=table.io,
            snapshot_properties=summary,
        )

    def _existing_manifests(self) -> list[ManifestFile]:
        return [m for m in super()._existing_manifests() if m.has_added_files() or m.has_existing_files()]

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        properties = self._transaction.table_metadata.properties

        def setting(name: str, default: int) -> int:
            return property_as_int(properties, name, default) or default

        merger: Any = _ManifestMergeManager(
            target_size_bytes=setting(
                TableProperties.MANIFEST_TARGET_SIZE_BYTES, TableProperties.MANIFEST_TARGET_SIZE_BYTES_DEFAULT
            ),
            min_count_to_merge=setting(
                TableProperties.MANIFEST_MIN_MERGE_COUNT, TableProperties.MANIFEST_MIN_MERGE_COUNT_DEFAULT
            ),
            merge_enabled=True,
            snapshot_producer=self,
        )
        merged: list[ManifestFile] = merger.merge_manifests([m for m in manifests if m.content == ManifestContent.DATA])
        return merged
