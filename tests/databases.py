"""Real database servers on free ports, as Debian packages them."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine
from sqlalchemy.exc import OperationalError

from tests.services import free_port, require_binary

PASSWORD = "b3tter-n0t-shown"
"""Of every user of these servers."""
_STARTS_WITHIN = 60


def _binary(name: str) -> str:
    """Debian keeps the binaries of a PostgreSQL server beside the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else require_binary(name)


@contextmanager
def _folder(owner: str) -> Iterator[tuple[Path, str | None]]:
    """A new folder, and whom the server runs as: neither runs as root."""
    folder = Path(tempfile.mkdtemp(prefix="secchi-database-"))
    user = owner if os.geteuid() == 0 else None
    try:
        if user:
            folder.chmod(0o755)
            found = pwd.getpwnam(user)
            os.chown(folder, found.pw_uid, found.pw_gid)
        yield folder, user
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], user: str | None, folder: Path, url: URL) -> Iterator[URL]:
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, user=user, cwd=folder, start_new_session=True)
    try:
        _wait(url, server, log)
        yield url
    finally:
        server.send_signal(signal.SIGQUIT if "postgres" in command[0] else signal.SIGTERM)
        server.wait(30)


def _wait(url: URL, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    engine = create_engine(url)
    while True:
        try:
            engine.connect().close()
            engine.dispose()
            return
        except OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()) from error
            time.sleep(0.1)


@contextmanager
def postgresql() -> Iterator[URL]:
    """A PostgreSQL server with a user ``secchi`` that needs a password."""
    initdb, server = _binary("initdb"), _binary("postgres")
    with _folder("postgres") as (folder, user):
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data, port = folder / "data", free_port()
        made = [
            initdb,
            "-D",
            str(data),
            "-U",
            "secchi",
            f"--pwfile={secret}",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        url = URL.create("postgresql+psycopg", "secchi", PASSWORD, "127.0.0.1", port, "postgres")
        command = [server, "-D", str(data), "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        with _running(command, user, folder, url) as ready:
            yield ready


@contextmanager
def mariadb() -> Iterator[URL]:
    """A MariaDB server with a user ``secchi`` that needs a password."""
    install, server = require_binary("mariadb-install-db"), require_binary("mariadbd")
    with _folder("mysql") as (folder, user):
        data, port = folder / "data", free_port()
        made = [install, "--no-defaults", f"--datadir={data}", "--skip-test-db"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        start = folder / "start.sql"
        start.write_text(
            "CREATE DATABASE plant;\n"  # a statement a line: the server reads it so
            f"CREATE USER secchi@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON plant.* TO secchi@'127.0.0.1';\n"
        )
        url = URL.create("mysql+pymysql", "secchi", PASSWORD, "127.0.0.1", port, "plant")
        command = [server, "--no-defaults", f"--datadir={data}", f"--socket={folder / 's'}", f"--port={port}"]
        command += ["--bind-address=127.0.0.1", f"--init-file={start}", "--skip-name-resolve"]
        with _running(command, user, folder, url) as ready:
            yield ready


@contextmanager
def sqlite() -> Iterator[URL]:
    """An SQLite file, which needs no server."""
    with tempfile.TemporaryDirectory(prefix="secchi-database-") as folder:
        yield URL.create("sqlite", database=f"{folder}/plant.db")
