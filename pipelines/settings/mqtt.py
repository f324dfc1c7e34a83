"""``[[mqtt]]``: the brokers that are collected from."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.settings.fields import Host, Model, Name, Port, Secret
from pipelines.settings.tls import TlsConfig
from resources.durations import Duration, PositiveDuration
from resources.errors import ConfigurationError
from resources.mqtt import Broker
from resources.topics import check_filter, subscription

TopicFilter = Annotated[str, AfterValidator(check_filter)]


def _state_topic(value: str) -> str:
    if not value or any(character in value for character in "+#{}\0") or value.startswith("$"):
        raise ValueError("must be a topic without wildcards and not below '$'")
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or any(character.isspace() for character in value):
        raise ValueError("must start with '/' and have no blanks")
    return value


def _seconds(value: timedelta) -> int:
    return max(1, round(value.total_seconds()))


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
    transport: Literal["tcp", "websocket"] = "tcp"
    path: Annotated[str, AfterValidator(_path)] = "/mqtt"
    tls: TlsConfig | None = None
    keepalive: Annotated[Duration, AfterValidator(_keepalive)] = timedelta(seconds=60)
    reconnect_min: PositiveDuration = timedelta(milliseconds=500)
    reconnect_max: PositiveDuration = timedelta(seconds=60)
    max_in_flight: Annotated[int, Field(ge=1, le=65535)] = 1000
    session_expiry: PositiveDuration | None = None
    state_topic: Annotated[str, AfterValidator(_state_topic)] | None = None

    @model_validator(mode="after")
    def _reconnects_in_a_range(self) -> "MqttBroker":
        least, most = self.reconnect_min.total_seconds(), self.reconnect_max.total_seconds()
        if least > most:
            raise ValueError(f"has reconnect_min = {least:g} s, which must not be more than reconnect_max = {most:g} s")
        return self

    @model_validator(mode="after")
    def _fits_protocol(self) -> "MqttBroker":
        if self.session_expiry is not None and self.protocol != "5":
            raise ValueError("session_expiry needs protocol = '5'; in MQTT 3.1.1 the broker's own setting decides")
        return self

    @property
    def client(self) -> str:
        """The client identifier that the broker knows its session by."""
        return self.client_id or f"secchi-{self.name}"

    def reveal(self) -> Broker:
        """What a connection is made with.

        Raises:
            ConfigurationError: a secret is not there.
        """
        place = "password: "
        try:
            password = self.password.reveal() if self.password else None
            place = "tls."
            tls = self.tls.reveal() if self.tls else None
        except ConfigurationError as error:
            raise ConfigurationError(f"mqtt broker {self.name}: {place}{error}") from error
        return Broker(
            name=self.name,
            host=self.host,
            port=self.port,
            client_id=self.client,
            topics=tuple(dict.fromkeys(subscription(topic) for topic in self.topics)),
            qos=self.qos,
            protocol=self.protocol,
            transport=self.transport,
            path=self.path,
            tls=tls,
            username=self.username,
            password=password,
            keepalive=_seconds(self.keepalive),
            receive_maximum=self.max_in_flight,
            session_expiry=_seconds(self.session_expiry) if self.session_expiry else None,
            state_topic=self.state_topic,
        )
