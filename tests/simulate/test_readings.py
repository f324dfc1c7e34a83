"""What the sensors send: unique keys, the three shapes, faults where the labels say, payloads that are broken."""

import json
import statistics
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.simulate.catalogue import Site, load_catalogue
from pipelines.simulate.readings import FAULTS, Message, Plant, broken
from tests.simulate.test_catalogue import DEVICE, SENSOR, SITE

NOON_MS = 1_760_000_400_000
HOUR_MS = 3_600_000
SMALL = [Site.model_validate({**SITE, "devices": [{**DEVICE, "sensors": [SENSOR, {**SENSOR, "sensorId": 2}]}]})]


def readings(message: Message) -> Any:
    return json.loads(message.payload)


@pytest.fixture(scope="module")
def history() -> list[Message]:
    return list(Plant(load_catalogue(), 7).history(NOON_MS - HOUR_MS, NOON_MS, 60_000))


def test_history_has_one_reading_a_sensor_and_step_oldest_steps_first(history: list[Message]) -> None:
    steps = [(message.key.ts_ms - NOON_MS) // 60_000 for message in history if message.key]
    assert steps == sorted(steps)
    counts = Counter((step, message.key[:4]) for step, message in zip(steps, history, strict=True) if message.key)
    assert set(counts.values()) == {1} and set(steps) == set(range(-60, 0))
    open_sensors = sum(len(d.sensors) for s in load_catalogue() for d in s.devices if s.is_open(NOON_MS - HOUR_MS // 2))
    assert 0.9 * 60 * open_sensors < len(history) <= 60 * open_sensors


def test_a_seed_gives_the_same_readings_again(history: list[Message]) -> None:
    again = list(Plant(load_catalogue(), 7).history(NOON_MS - HOUR_MS, NOON_MS, 60_000))
    assert again == history
    assert list(Plant(load_catalogue(), 8).history(NOON_MS - HOUR_MS, NOON_MS, 60_000)) != history


def test_payload_and_key_agree(history: list[Message]) -> None:
    for message in history:
        document, key = readings(message), message.key
        metadata = document["metadata"]
        assert key is not None
        assert (metadata["siteId"], metadata["deviceId"], metadata["sensorId"]) == key[:3]
        assert (metadata["unit"].strip(), int(document["ts"])) == key[3:]
        assert isinstance(document["measurement"], int | float)


def test_shapes_follow_regions_and_are_mixed_now_and_then(history: list[Message]) -> None:
    shapes: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for message in history:
        shapes[message.topic.split("/")[1]][tuple(readings(message)["metadata"])[4:]] += 1
    usual = {"north": (), "south": ("ts_human", "location"), "east": ("ts_human", "location", "deviceType")}
    for region, shape in usual.items():
        assert shapes[region].most_common(1)[0][0] == shape
        assert len(shapes[region]) == 3
        assert shapes[region][shape] > 0.95 * shapes[region].total()


def test_quirks_occur(history: list[Message]) -> None:
    documents = [readings(message) for message in history]
    assert 0 < sum(isinstance(document["ts"], str) for document in documents) < 200
    assert 0 < sum(document["metadata"]["unit"].startswith(" ") for document in documents) < 200
    spellings = {document["metadata"].get("deviceType") for document in documents}
    assert {"Gas Oven", "Gas_Oven", "Hoist Motor", "Hoist_Motor"} <= spellings


def test_time_text_is_the_sites_local_time(history: list[Message]) -> None:
    site = SMALL[0].model_copy(update={"region": "south"})
    texts = {readings(m)["metadata"].get("ts_human") for m in Plant([site], 0).history(1_000, 2_000, 1_000)}
    assert all(text is None or text.startswith("1969-12-31T20:30:01.") for text in texts)
    assert any(texts)


@given(st.lists(st.integers(NOON_MS, NOON_MS + 50), max_size=60))
def test_no_clock_makes_two_readings_share_a_key(clock: list[int]) -> None:
    plant = Plant(SMALL, 0)
    keys = [message.key for message in plant.history(NOON_MS - 40, NOON_MS, 10)]
    keys += [message.key for now in clock if (message := plant.live(now))]
    assert len(set(keys)) == len(keys) == 8 + len(clock)


def test_closed_sites_send_nothing() -> None:
    closed = SITE | {"operational_start_time": "08:00", "operational_end_time": "16:00", "time_zone": "+0:00"}
    plant = Plant([Site.model_validate(closed)], 0)
    hours = {m.key.ts_ms // HOUR_MS for m in plant.history(0, 24 * HOUR_MS, 60_000) if m.key}
    assert hours == set(range(8, 16))
    assert plant.live(20 * HOUR_MS) is None


def test_values_deviate_within_the_labels_and_only_there() -> None:
    plant = Plant(load_catalogue(), 3)
    messages = list(plant.history(NOON_MS - 6 * HOUR_MS, NOON_MS, 120_000))
    messages += [m for now in range(NOON_MS, NOON_MS + 60_000, 20) if (m := plant.live(now))]
    sensors = {
        (s.site_id, d.device_id, x.sensor_id, x.unit): x for s in load_catalogue() for d in s.devices for x in d.sensors
    }
    labels = list(plant.labels(NOON_MS - 6 * HOUR_MS, NOON_MS + 60_000))
    inside: dict[str, list[float]] = defaultdict(list)
    outside: list[float] = []
    stuck = defaultdict(set)
    for message in messages:
        key = message.key
        assert key is not None
        sensor = sensors[key[:4]]
        distance = abs(readings(message)["measurement"] - sensor.mean) / sensor.sd
        own = [label for label in labels if key[:2] == label[:2] and label.started_ms <= key.ts_ms < label.ended_ms]
        (inside[own[0].kind] if own else outside).append(distance)
        if own and own[0].kind == "stuck":
            stuck[key[:4], own[0]].add(readings(message)["measurement"])
    assert max(outside) < 6
    assert {label.kind for label in labels} == set(FAULTS) and inside.keys() == set(FAULTS) - {"drop_out"}
    for kind in ("drift", "spikes", "noise"):
        assert statistics.mean(inside[kind]) > 2 * statistics.mean(outside), kind
        assert sum(distance > 6 for distance in inside[kind]) > len(inside[kind]) / 10, kind
    # A sensor that sent nothing before its fault has nothing to be stuck at until its first value.
    assert max(map(len, stuck.values())) <= 2 and statistics.mean(map(len, stuck.values())) < 1.2


def test_a_live_fault_comes_in_the_first_minute_and_in_each_later_one() -> None:
    plant = Plant(SMALL, 0)
    plant.live(NOON_MS)
    live = [one for one in plant.labels(NOON_MS, NOON_MS + 300_000) if one.ended_ms - one.started_ms == 20_000]
    assert [label.started_ms - NOON_MS for label in live] == [10_000, 70_000, 130_000, 190_000, 250_000]
    assert tuple(label.kind for label in live) == FAULTS


def test_daily_labels_follow_local_time_and_are_cut_to_the_asked_range() -> None:
    window = 3 * HOUR_MS + 20 * 60_000  # 23:50 at UTC-3:30 is 03:20 UTC
    labels = list(Plant(SMALL, 0).labels(0, 48 * HOUR_MS))
    assert [(label.started_ms, label.ended_ms) for label in labels] == [
        (window + day * 24 * HOUR_MS, window + day * 24 * HOUR_MS + 30 * 60_000) for day in (0, 1)
    ]
    first = FAULTS.index(labels[0].kind)
    assert labels[1].kind == FAULTS[(first + 1) % len(FAULTS)]
    (cut,) = Plant(SMALL, 0).labels(window + 60_000, window + 120_000)
    assert (cut.started_ms, cut.ended_ms) == (window + 60_000, window + 120_000)


def test_every_kind_of_broken_payload_is_unusable_and_different(history: list[Message]) -> None:
    payloads = [broken(history[0], kind).payload for kind in range(5)]
    assert len(set(payloads)) == 5
    assert broken(history[0], 5).payload == payloads[0]
    assert not any(map(is_reading, payloads))
    assert is_reading(history[0].payload)
    assert all(broken(history[0], kind).key is None for kind in range(5))


def is_reading(payload: bytes) -> bool:
    try:
        document = json.loads(payload.decode(), parse_constant=lambda name: None)
    except ValueError:
        return False
    return {"siteId", "deviceId", "sensorId", "unit"} <= set(document["metadata"]) and isinstance(
        document["measurement"], int | float
    )


def test_rounds_visit_every_sensor_before_one_comes_again() -> None:
    plant = Plant(load_catalogue(), 0)
    sent = [message.key[:4] if (message := plant.live(NOON_MS + now)) and message.key else None for now in range(440)]
    first, second = ([key for key in half if key] for half in (sent[:220], sent[220:]))
    assert len(set(first)) == len(first) > 150
    assert set(first) == set(second) and len(first) == len(second)
    assert all(one != next_one for one, next_one in pairwise(first))
