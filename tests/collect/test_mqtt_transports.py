import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings.tls import TlsConfig
from resources.errors import ConfigurationError
from tests.certificates import Authority
from tests.collect.mosquitto import mosquitto, publish
from tests.collect.mqtt_collecting import collecting, open_landing, payloads, subscribed, until

PAYLOADS = [b"%05d" % n + bytes(400) for n in range(500)]


def tls_options(authority: Authority, *more: str) -> list[str]:
    certificate, key = authority.sign("server")
    return [f"cafile {authority.path}", f"certfile {certificate}", f"keyfile {key}", *more]


def collect_through(tmp_path: Path, options: list[str], **settings: Any) -> None:
    """What a publisher sends over the plain listener arrives through the one with ``options``."""

    async def scenario(port: int, plain_port: int) -> None:
        async with open_landing(tmp_path / "landing") as landing, collecting(landing, port, **settings) as collector:
            await subscribed(collector)
            await asyncio.to_thread(publish, plain_port, PAYLOADS)
            await until(lambda: landing.durable >= len(PAYLOADS))
            assert collector.status()["reconnects"] == 0

    with mosquitto(tmp_path / "broker", options=options) as broker:
        asyncio.run(scenario(broker.port, broker.plain_port))
    assert payloads(tmp_path / "landing") == set(PAYLOADS)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_over_tls_with_a_certificate_of_its_own(tmp_path: Path, transport: str, protocol: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("client", password=b"sesame")
    (tmp_path / "password").write_text("sesame\n")
    tls = {
        "ca": authority.path,
        "certificate": certificate,
        "key": key,
        "key_password": {"file": tmp_path / "password"},
        "minimum_version": "1.3",
    }
    options = tls_options(authority, "require_certificate true")
    if transport == "websocket":
        options.append("protocol websockets")
    collect_through(tmp_path, options, tls=tls, transport=transport, protocol=protocol)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_over_websocket(tmp_path: Path, qos: int) -> None:
    collect_through(tmp_path, ["protocol websockets"], transport="websocket", qos=qos)


def test_what_is_wrong_with_a_certificate_is_one_line_and_stops_no_other_broker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    certificate, key = authority.sign("client")
    good = {"ca": authority.path, "certificate": certificate, "key": key}
    wrong = {
        "is not valid: self-signed certificate in certificate chain (see tls.ca)": {**good, "ca": other.path},
        "certificate required": {"ca": authority.path},
        "tls.ca: cannot read": {"ca": tmp_path / "nowhere.pem"},
        "tls.certificate: cannot use": {**good, "key": other.sign("stranger")[1]},
        "closed before CONNACK": None,
    }

    async def scenario(port: int) -> None:
        async with (
            open_landing(tmp_path / "landing") as landing,
            collecting(landing, port, tls=good) as accepted,
        ):
            for message, tls in wrong.items():
                async with collecting(landing, port, tls=tls, client_id="wrong") as refused:
                    await asyncio.sleep(1)
                    assert message in refused.status()["last_error"]
            await subscribed(accepted)
            assert accepted.status()["reconnects"] == 0

    options = tls_options(authority, "require_certificate true")
    with mosquitto(tmp_path / "broker", options=options) as broker, caplog.at_level(logging.WARNING):
        asyncio.run(scenario(broker.port))
    assert len(caplog.records) == len(wrong), "one line each, however often it was tried"
    assert all(len(record.message.splitlines()) == 1 for record in caplog.records)


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "127.0.0.2")
    options = [f"cafile {authority.path}", f"certfile {certificate}", f"keyfile {key}"]

    async def scenario(port: int) -> None:
        tls = {"ca": authority.path}
        async with open_landing(tmp_path / "landing") as landing, collecting(landing, port, tls=tls) as collector:
            await until(lambda: collector.status()["last_error"])
            assert "IP address mismatch" in collector.status()["last_error"]

    with mosquitto(tmp_path / "broker", options=options) as broker:
        asyncio.run(scenario(broker.port))


def test_an_encrypted_key_without_its_password_is_said_and_not_asked_for(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).sign("client", password=b"sesame")
    with pytest.raises(ConfigurationError, match=r"certificate: cannot use .*client\.pem with key .*client\.key"):
        TlsConfig(certificate=certificate, key=key).reveal().context()
