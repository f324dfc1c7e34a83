"""The data files of a snapshot and the bounds of their columns.

Manifests never change, so what they list is read once and kept; planning a read of a few hundred files then takes well
under a millisecond, where pyiceberg's evaluation of the same condition over each file takes tens of them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DateType, PrimitiveType, TimestamptzType

from resources.errors import SchemaMismatchError
from resources.selection import Where

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MANIFESTS_KEPT = 2_000


def bounds(table: Table, file: DataFile, column: str) -> tuple[Any, Any] | None:
    """Lowest and highest value of a column in a file, in the column's Python type; None where they are not known.

    Bounds of text may be cut (Iceberg specification, "Manifests"): the lower one is never higher, the upper one never
    lower than a value.
    """
    field = table.schema().find_field(column)
    lower, upper = (file.lower_bounds or {}).get(field.field_id), (file.upper_bounds or {}).get(field.field_id)
    if lower is None or upper is None:
        return None
    if not isinstance(field.field_type, PrimitiveType):
        return None
    low, high = from_bytes(field.field_type, lower), from_bytes(field.field_type, upper)
    if isinstance(field.field_type, TimestamptzType):
        return _EPOCH + timedelta(microseconds=int(low)), _EPOCH + timedelta(microseconds=int(high))
    if isinstance(field.field_type, DateType):
        return date.fromordinal(_EPOCH.toordinal() + int(low)), date.fromordinal(_EPOCH.toordinal() + int(high))
    return low, high


class FileIndex:
    """Remembers what manifests list, and decoded bounds; for any thread."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[str, list[ManifestFile]]] = {}
        self._manifests: OrderedDict[str, list[DataFile]] = OrderedDict()
        self._lock = Lock()
        self._bounds: dict[str, dict[str, tuple[Any, Any] | None]] = {}

    def files(self, table: Table, where: Sequence[Where]) -> list[DataFile]:
        """The files of the table's current snapshot that may hold rows of every condition.

        Raises:
            SchemaMismatchError: the table has row-level deletes.
        """
        snapshot = table.current_snapshot()
        if snapshot is None:
            return []
        found = []
        with self._lock:
            for manifest in self._listed_manifests(table, snapshot):
                if manifest.content == ManifestContent.DELETES:
                    name = ".".join(table.name())
                    raise SchemaMismatchError(f"{name}: has row-level deletes, which Secchi never writes")
                found += [f for f in self._listed(table, manifest) if self._may_hold(table, f, where)]
        return found

    def _listed_manifests(self, table: Table, snapshot: Snapshot) -> list[ManifestFile]:
        """What the snapshot's manifest list holds; that of each table's newest snapshot is remembered."""
        name = ".".join(table.name())
        if name not in self._lists or self._lists[name][0] != snapshot.manifest_list:
            self._lists[name] = snapshot.manifest_list, snapshot.manifests(table.io)
        return self._lists[name][1]

    def _listed(self, table: Table, manifest: ManifestFile) -> list[DataFile]:
        path = manifest.manifest_path
        if path not in self._manifests:
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            self._manifests[path] = [entry.data_file for entry in entries]
            while len(self._manifests) > _MANIFESTS_KEPT:
                for file in self._manifests.popitem(last=False)[1]:
                    self._bounds.pop(file.file_path, None)
        self._manifests.move_to_end(path)
        return self._manifests[path]

    def _may_hold(self, table: Table, file: DataFile, where: Sequence[Where]) -> bool:
        known = self._bounds.setdefault(file.file_path, {})
        for condition in where:
            if condition.column not in known:
                known[condition.column] = bounds(table, file, condition.column)
            limits = known[condition.column]
            if limits is not None and not condition.may_hold(*limits):
                return False
        return True
