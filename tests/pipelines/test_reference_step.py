"""Built-in reference content is there when a table is computed with it."""

from pathlib import Path

from pipelines.reference_step import read_reference
from tests.pipelines.plant import Plant


def test_content_is_written_when_it_is_first_read(tmp_path: Path) -> None:
    """A run of silver alone, in a new lakehouse, names its SNMP objects too."""
    context = Plant(tmp_path).context
    table = context.tables["reference.mib_objects"]
    first = read_reference(context, table)
    assert "ifHCInOctets" in first["object_name"].to_list()
    assert read_reference(context, table).equals(first)
    assert context.lakehouse.head(table.stored).batch_id == 1
