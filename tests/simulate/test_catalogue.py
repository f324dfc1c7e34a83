"""The site catalogue: the packaged one, the format's optional parts, and mistakes."""

import json
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from assets.reference.sites import sites as sites_table
from assets.side_input import Versions
from pipelines.simulate.catalogue import Site, load_catalogue
from pipelines.simulate.factory import write_sites
from resources.errors import ConfigurationError
from resources.reference_files import read_reference_file

SENSOR = {"sensorId": 1, "unit": "BAR", "min_range": 0, "max_range": 10, "mean": 5, "sd": 1}
DEVICE = {
    "deviceId": 9,
    "deviceType": "Pump",
    "stabilityFactor": 50,
    "sfd_start_time": "23:50",
    "sfd_end_time": "00:20",
    "sensors": [SENSOR],
}
SITE = {
    "siteId": 101,
    "name": "Pump house",
    "location": {"latitude": 1.5, "longitude": -2.5},
    "time_zone": "-3:30",
    "data_persistence": 2,
    "devices": [DEVICE],
}


def write(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_packaged_catalogue_has_fourteen_sites_in_five_regions_and_the_quirks() -> None:
    sites = load_catalogue()
    assert [site.site_id for site in sites] == list(range(101, 115))
    regions = defaultdict(list)
    for site in sites:
        regions[site.region].append(site.site_id)
    assert regions == {
        "north": [101, 104],
        "south": [102, 105],
        "east": [103, 106, 107, 108, 109],
        "west": [110, 111],
        "central": [112, 113, 114],
    }
    assert all(site.history_ms is not None and device.fault_window for site in sites for device in site.devices)
    assert {site.is_open(0) for site in sites} == {True, False}
    sensors = [(d.device_id, x) for site in sites for d in site.devices for x in d.sensors]
    assert len(sensors) == 220
    assert {"BAR", "Bar", "L/min", "L/m", "Celcius", "Celsius"} <= {x.unit for _, x in sensors}
    devices_of, units_of = defaultdict(set), defaultdict(set)
    for device, sensor in sensors:
        devices_of[sensor.sensor_id].add(device)
        units_of[device, sensor.sensor_id].add(sensor.unit)
    assert Counter(map(len, devices_of.values())) == {1: 217, 2: 1}
    assert Counter(map(len, units_of.values())) == {1: 218, 2: 1}
    assert {"Oil_Pump", "Oil Pump"} <= {d.device_type for site in sites for d in site.devices}
    assert all(x.minimum < x.mean - 3 * x.sd and x.mean + 5 * x.sd < x.maximum for _, x in sensors)


def test_optional_parts_and_foreign_keys(tmp_path: Path) -> None:
    (site,) = load_catalogue(write(tmp_path / "sites.json", [SITE]))
    assert site.offset == timedelta(hours=-3, minutes=-30)
    assert site.devices[0].fault_window == (23 * 3600 + 50 * 60, 30 * 60)
    assert site.devices[0].sensors[0].deviation_weight == 5
    assert site.second_of_day(0) == 20.5 * 3600
    assert site.is_open(0) and site.history_ms is None
    started = Site.model_validate({**SITE, "historic_data_start_datetime": "2024-01-01T00:00"})
    assert started.history_ms == 1_704_067_200_000 + 3.5 * 3_600_000


def test_operational_hours_may_cross_midnight() -> None:
    site = Site.model_validate({**SITE, "operational_start_time": "20:00", "operational_end_time": "04:00"})
    hours = [site.is_open((hour * 60 + 30 + 3 * 60) * 60_000) for hour in range(24)]
    assert [hour for hour, is_open in enumerate(hours) if is_open] == [0, 1, 2, 3, 4, 20, 21, 22, 23]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is no JSON"),
        ([], "lists no sensor"),
        ([{**SITE, "siteId": 999}], "site 999 has no known region; ids 101 to 114 have, or add a region"),
        ([{**SITE, "time_zone": "CET"}], r"0.time_zone must be an offset from UTC like '\+2:00', got 'CET'"),
        ([{**SITE, "devices": [{**DEVICE, "sensors": [{**SENSOR, "sd": 0}]}]}], "0.devices.0.sensors.0.sd .*got 0"),
        ([{**SITE, "devices": [{**DEVICE, "sensors": [SENSOR, {**SENSOR, "unit": " BAR "}]}]}], "stands twice"),
    ],
)
def test_mistakes_name_file_place_and_value(tmp_path: Path, document: Any, message: str) -> None:
    path = write(tmp_path / "sites.json", document)
    with pytest.raises(ConfigurationError, match=f"{path}: .*{message}"):
        load_catalogue(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.json: No such file"):
        load_catalogue(tmp_path / "nothing.json")


def test_list_of_sites_is_what_the_reference_reads(tmp_path: Path) -> None:
    assert isinstance(sites_table.function, Versions)
    write_sites(tmp_path / "sites.csv", load_catalogue())
    rows = sites_table.function.given(read_reference_file(tmp_path / "sites.csv", "csv"))
    assert rows.height == 14 and rows.null_count().sum_horizontal().item() == 0
    first = rows.sort("site_id").row(0, named=True)
    assert (first["name"], first["region"], first["time_zone"]) == ("Highveld Lubricants", "north", "+02:00")
