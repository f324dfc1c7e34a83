from datetime import UTC, datetime

import pytest

from assets.reference.fault_labels import fault_labels
from resources.errors import ConfigurationError

_HEAD = b"site_id,device_id,started_at,ended_at,fault\n"
_LINE = b"101,1001,2026-03-01T12:00:00.000Z,2026-03-01T12:30:00.000Z,drift\n"


def test_lines_of_files_become_rows_the_first_of_a_key_stays() -> None:
    assert fault_labels.function is not None
    other = (
        b"fault,note,ended_at,started_at,device_id,site_id\nnoise,x,2026-03-02T01:00:00Z,2026-03-02T00:30:00Z,1,102\n"
    )
    entries = [
        {"file": "a.csv", "content": _HEAD + _LINE},
        {"file": "b.csv", "content": _HEAD + _LINE.replace(b"drift", b"stuck")},
        {"file": "c.csv", "content": other},
        {"file": "d.csv", "content": _HEAD},
    ]
    rows = fault_labels.function(entries)
    assert rows.select("site_id", "device_id", "fault").rows() == [(101, 1001, "drift"), (102, 1, "noise")]
    assert rows["ended_at"][0] == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    declared = {name: dtype for name, dtype in fault_labels.schema.items() if name != "batch_id"}
    assert dict(rows.schema) == declared == dict(fault_labels.function([]).schema)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "fault_labels: a.csv: "),
        (b"site_id,device_id\n1,2\n", "has no column 'ended_at'; must have site_id, device_id"),
        (_HEAD + _LINE.replace(b"101", b"north"), "fault_labels: a.csv: could not parse"),
        (_HEAD + _LINE.replace(b"2026-03-01T12:00:00.000Z", b"noon"), "fault_labels: a.csv: "),
        (_HEAD + _LINE.replace(b"drift", b""), "has a line with an empty value"),
        (_HEAD + _LINE.replace(b"2026-03-01T12:30", b"2026-02-01T12:30"), "ends before it starts"),
    ],
)
def test_mistakes_name_the_file(content: bytes, message: str) -> None:
    assert fault_labels.function is not None
    with pytest.raises(ConfigurationError) as caught:
        fault_labels.function([{"file": "a.csv", "content": content}])
    assert message in str(caught.value)
