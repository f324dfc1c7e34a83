"""The processes that make up a running Secchi: collectors, Dagster's code server, its daemon and its web server."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from pipelines.config import CONFIG_VARIABLE, Config
from pipelines.up import Child
from resources.errors import ConfigurationError

_LOCATION = "pipelines.definitions"
_SOCKET_PATH_BYTES = 100  # sockaddr_un takes 107


def stages(config: Config, config_path: Path | None, host: str, port: int) -> list[list[Child]]:
    """The processes of a configuration: those of a stage start at once, as soon as the stage before is ready.

    One code server loads the definitions, for the web server and the daemon alike.
    """
    home = dagster_home(config)
    code = _socket_path(home)
    workspace = _write_workspace(home, code)
    environment = child_environment(config_path, home)

    def python(name: str, *arguments: str, is_ready: Callable[[], bool] | None = None) -> Child:
        return Child(name, [sys.executable, "-m", *arguments], environment, is_ready)

    serve = ["api", "grpc", "--socket", str(code), "-m", _LOCATION, "--location-name", _LOCATION]
    serve += ["--use-python-environment-entry-point", "--empty-working-directory", "--log-level", "warning"]
    daemon = ["run", "-w", str(workspace), "--log-level", "warning"]
    web = ["-w", str(workspace), "-h", host, "-p", str(port), "--dagster-log-level", "warning"]
    return [
        [
            *([python("collect", "pipelines.cli", "-v", "collect")] if config.has_sources else []),
            python("code", "dagster", *serve, is_ready=listens(code)),
        ],
        [
            python("web", "dagster_webserver", *web, is_ready=listens((host, port))),
            python("daemon", "dagster._daemon", *daemon),
        ],
    ]


def require_free(host: str, port: int, way_out: str) -> None:
    """Checks that a TCP port can be listened on; ``way_out`` ends the message.

    Raises:
        ConfigurationError: it is taken, or the address is not one of this host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}; {way_out}") from error


def check(config_path: Path | None) -> int:
    """Runs ``secchi check`` in a process of its own; returns its exit code.

    What it imports would stay in the memory of a supervisor that has no use for it.
    """
    command = [sys.executable, "-m", "pipelines.cli", *(["--config", str(config_path)] if config_path else []), "check"]
    environment = {**os.environ, **_our_code()}
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode


def dagster_home(config: Config) -> Path:
    """DAGSTER_HOME of a lakehouse, made if needed, with the instance settings that come with the package."""
    home = config.lakehouse.path.resolve() / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    wanted, path = files("pipelines").joinpath("dagster.yaml").read_text(), home / "dagster.yaml"
    if not path.exists() or path.read_text() != wanted:
        path.write_text(wanted)
    return home


def child_environment(config_path: Path | None, home: Path) -> dict[str, str]:
    """What a child is told: the configuration, Dagster's home, and where our code is and is not looked for."""
    added = {"DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    named = config_path or os.environ.get(CONFIG_VARIABLE) or "secchi.toml"
    if config_path or os.environ.get(CONFIG_VARIABLE) or Path(named).exists():
        added[CONFIG_VARIABLE] = str(Path(named).absolute())
    return {**added, **_our_code()}


def _our_code() -> dict[str, str]:
    """Variables by which Python finds our packages, and not a folder "assets" where the user happens to stand."""
    root = Path(__file__).resolve().parents[1]
    if root.name == "site-packages":
        return {"PYTHONSAFEPATH": "1"}
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}


def _socket_path(home: Path) -> Path:
    """The code server's socket: the same place every time, because Dagster keeps the state of sensors by it."""
    path = home / "code.sock"
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        name = f"secchi-{os.getuid()}-{sha256(os.fsencode(home)).hexdigest()[:16]}"
        folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "code.sock"
    return path


def _write_workspace(home: Path, code: Path) -> Path:
    path = home / "workspace.yaml"
    server = f"{{host: localhost, socket: '{code}', location_name: {_LOCATION}}}"
    path.write_text(f"load_from:\n  - grpc_server: {server}\n")
    return path


def listens(address: Path | tuple[str, int]) -> Callable[[], bool]:
    """Returns what tells whether somebody listens at a socket's path, or at a host and port."""

    def probe() -> bool:
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        if isinstance(address, tuple) and ":" in address[0]:
            family = socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            return client.connect_ex(str(address) if isinstance(address, Path) else address) == 0

    return probe
