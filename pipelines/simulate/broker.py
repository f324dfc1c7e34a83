"""The demo's MQTT broker: Mosquitto where it is installed, else amqtt inside this module.

``python -m pipelines.simulate.broker --port 1883`` runs amqtt on loopback until SIGINT or SIGTERM. A broker takes
everybody, or its users alone, each with a password and topics of its own.
"""

import argparse
import asyncio
import base64
import hashlib
import logging
import os
import shutil
import signal
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resources.errors import SourceUnavailableError

HOST = "127.0.0.1"
_RETRY_SECONDS = 0.05
_AMQTT_ANYBODY = "amqtt.plugins.authentication.AnonymousAuthPlugin"
_AMQTT_LOGIN = "amqtt.plugins.authentication.FileAuthPlugin"
_HASH_ROUNDS = 101  # as mosquitto_passwd's own


@dataclass(frozen=True)
class User:
    """Who may log in, and the topic filters on which he may publish and to which he may subscribe."""

    name: str
    password: str = field(repr=False)
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


def broker_command(directory: Path, port: int, users: Sequence[User] = ()) -> list[str]:
    """Returns the command that runs a broker on 127.0.0.1:``port``; ``directory`` keeps its configuration and state.

    Without ``users`` it takes everybody. Passwords are stored as hashes.
    """
    mosquitto = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
    if mosquitto is None:
        return amqtt_command(port, directory, users)
    return _mosquitto_command(mosquitto, directory, port, users)


def amqtt_command(port: int, directory: Path | None = None, users: Sequence[User] = ()) -> list[str]:
    """Returns the command that runs amqtt on 127.0.0.1:``port``; the passwords of ``users`` stand in ``directory``.

    amqtt passes QoS 1 messages to subscribers that are connected; it forgets what it sent to one that went away. Users
    are not kept to their topics: with that plugin it forgets what it acknowledged to a sender that disconnects soon.
    """
    command = [sys.executable, "-m", "pipelines.simulate.broker", "--port", str(port)]
    if not users:
        return command
    assert directory is not None, "users stand in a directory"
    from pwdlib.hashers.argon2 import Argon2Hasher

    hasher = Argon2Hasher()
    _write_private(directory / "passwords", [f"{user.name}:{hasher.hash(user.password)}" for user in users])
    return [*command, "--passwords", str(directory.resolve() / "passwords")]


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


def _write_private(path: Path, lines: Sequence[str]) -> None:
    """Writes a file that its owner alone may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _mosquitto_hash(password: str) -> str:
    """PBKDF2-SHA512 in the form of a password file of Mosquitto 2."""
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _HASH_ROUNDS, 64)
    return f"$7${_HASH_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _mosquitto_access(directory: Path, users: Sequence[User]) -> list[str]:
    """Writes who may do what; returns the lines of the configuration that name it."""
    if not users:
        return ["allow_anonymous true"]
    topics = []
    for user in users:
        writes, reads = (f"topic write {one}" for one in user.writes), (f"topic read {one}" for one in user.reads)
        topics += [f"user {user.name}", *writes, *reads]
    _write_private(directory / "passwords", [f"{user.name}:{_mosquitto_hash(user.password)}" for user in users])
    _write_private(directory / "topics", topics)
    files = {"password_file": "passwords", "acl_file": "topics"}
    return ["allow_anonymous false", *(f"{key} {directory.resolve() / name}" for key, name in files.items())]


def _mosquitto_command(binary: str, directory: Path, port: int, users: Sequence[User]) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        f"listener {port} {HOST}",
        *_mosquitto_access(directory, users),
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


async def _serve_amqtt(port: int, passwords: Path | None) -> None:
    """Runs amqtt until a signal asks it to stop."""
    from amqtt.broker import Broker

    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    listeners = {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}}
    anybody, users = {_AMQTT_ANYBODY: {"allow_anonymous": True}}, {_AMQTT_LOGIN: {"password_file": str(passwords)}}
    broker = Broker({"listeners": listeners, "plugins": users if passwords else anybody})
    await broker.start()
    await stopped.wait()
    await broker.shutdown()


def main(arguments: list[str] | None = None) -> int:
    """Runs amqtt; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.simulate.broker", description="Runs an MQTT broker.")
    parser.add_argument("--port", type=int, default=1883, help="TCP port of 127.0.0.1 to listen on")
    parser.add_argument("--passwords", type=Path, metavar="FILE", help="lines user:argon2-hash; without it everybody")
    options = parser.parse_args(arguments)
    # amqtt warns of each PUBACK that takes over 5 s and of its own dependencies: nothing that the user can act on.
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.CRITICAL)
    from amqtt.errors import BrokerError

    try:
        asyncio.run(_serve_amqtt(options.port, options.passwords))
    except BrokerError as error:
        sys.stderr.write(f"broker: {HOST}:{options.port}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
