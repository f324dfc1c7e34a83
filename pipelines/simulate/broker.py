"""The demo's MQTT broker: Mosquitto where it is installed, else amqtt inside this module.

``python -m pipelines.simulate.broker --port 1883`` runs amqtt on loopback until SIGINT or SIGTERM.
"""

import argparse
import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

from resources.errors import SourceUnavailableError

HOST = "127.0.0.1"
_RETRY_SECONDS = 0.05
_AMQTT_AUTH = "amqtt.plugins.authentication.AnonymousAuthPlugin"


def broker_command(directory: Path, port: int) -> list[str]:
    """Returns the command that runs a broker on 127.0.0.1:``port``; ``directory`` keeps its configuration and state."""
    mosquitto = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
    return amqtt_command(port) if mosquitto is None else _mosquitto_command(mosquitto, directory, port)


def amqtt_command(port: int) -> list[str]:
    """Returns the command that runs amqtt on 127.0.0.1:``port``.

    amqtt passes QoS 1 messages to subscribers that are connected; it forgets what it sent to one that went away.
    """
    return [sys.executable, "-m", "pipelines.simulate.broker", "--port", str(port)]


def wait_for_port(host: str, port: int, timeout: float) -> None:
    """Blocks until a TCP server answers; a coroutine calls it with ``asyncio.to_thread``.

    Raises:
        SourceUnavailableError: nobody answered within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=max(_RETRY_SECONDS, deadline - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise SourceUnavailableError(
                    f"{host}:{port}: no server answered within {timeout} s: {error}"
                ) from error
        time.sleep(_RETRY_SECONDS)


def _mosquitto_command(binary: str, directory: Path, port: int) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        f"listener {port} {HOST}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {directory.resolve()}/",
        "max_queued_messages 0",
        "max_inflight_messages 1000",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == 0:
        # Started as root, Mosquitto would become the user mosquitto, who may not write into the directory.
        lines.append("user root")
    configuration = directory.resolve() / "mosquitto.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return [binary, "-c", str(configuration)]


async def _serve_amqtt(port: int) -> None:
    """Runs amqtt until a signal asks it to stop."""
    from amqtt.broker import Broker

    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    listeners = {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}}
    broker = Broker({"listeners": listeners, "plugins": {_AMQTT_AUTH: {"allow_anonymous": True}}})
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Runs amqtt; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.simulate.broker", description="Runs an MQTT broker.")
    parser.add_argument("--port", type=int, default=1883, help="TCP port of 127.0.0.1 to listen on")
    options = parser.parse_args(arguments)
    # amqtt warns of each PUBACK that takes over 5 s and of its own dependencies: nothing that the user can act on.
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.CRITICAL)
    from amqtt.errors import BrokerError

    try:
        asyncio.run(_serve_amqtt(options.port))
    except BrokerError as error:
        sys.stderr.write(f"broker: {HOST}:{options.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
