"""``[[mqtt]]``: the brokers that are collected from."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.settings.fields import Host, Model, Name, Port, Secret
from resources.durations import Duration, PositiveDuration


def _topic_filter(value: str) -> str:
    """Checks a topic filter (MQTT 3.1.1 section 4.7)."""
    levels = value.split("/")
    if not value or "\0" in value or len(value.encode()) > 65_535:
        raise ValueError("must be a topic filter of 1 to 65,535 bytes without NUL")
    if "#" in value and (levels[-1] != "#" or value.count("#") > 1):
        raise ValueError("has '#' that is not the whole last level of the filter")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError("has '+' that is not a whole level of the filter")
    return value


TopicFilter = Annotated[str, AfterValidator(_topic_filter)]


def _keepalive(value: timedelta) -> timedelta:
    """Checks a keep-alive: two bytes of seconds, of which 0 means none (MQTT 3.1.1 section 3.1.2.10)."""
    if not timedelta(seconds=1) <= value <= timedelta(seconds=65_535):
        raise ValueError(f"must be from 1 s to 65535 s, got {value.total_seconds():g} s")
    return value


class MqttBroker(Model):
    """``[[mqtt]]``: one broker."""

    name: Name
    host: Host = "127.0.0.1"
    port: Port = 1883
    topics: Annotated[list[TopicFilter], Field(min_length=1)]
    qos: Literal[0, 1, 2] = 1
    username: str | None = None
    password: Secret | None = None
    client_id: Name | None = None
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    keepalive: Annotated[Duration, AfterValidator(_keepalive)] = timedelta(seconds=60)
    reconnect_min: PositiveDuration = timedelta(milliseconds=500)
    reconnect_max: PositiveDuration = timedelta(seconds=60)
    max_in_flight: Annotated[int, Field(ge=1, le=65535)] = 1000

    @model_validator(mode="after")
    def _reconnects_in_a_range(self) -> "MqttBroker":
        least, most = self.reconnect_min.total_seconds(), self.reconnect_max.total_seconds()
        if least > most:
            raise ValueError(f"has reconnect_min = {least:g} s, which must not be more than reconnect_max = {most:g} s")
        return self
