"""make demo: the main job on simulated plants, until Ctrl-C, or bounded and then audited."""

import argparse
import json
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.collect.instances import Instance
from pipelines.config import Config, load_config
from pipelines.services import child_environment, dagster_home, require_free, stages
from pipelines.simulate.broker import User, broker_command
from pipelines.simulate.catalogue import load_catalogue
from pipelines.simulate.factory import write_sites
from pipelines.up import Child, Supervisor
from resources.errors import SecchiError, SourceUnavailableError

if TYPE_CHECKING:
    from pipelines.context import Context

_GETS = ["1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.1.5.0"]
_WALKS = {
    "interfaces": ["1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"],
    "host": ["1.3.6.1.2.1.25.2.3.1", "1.3.6.1.2.1.25.3.3.1"],
    "sensors": ["1.3.6.1.2.1.99.1.1.1"],
    "ups": ["1.3.6.1.2.1.33.1"],
}
_AGENTS = (("system", "interfaces"), ("system", "ups"), ("system", "sensors"), ("system", "interfaces", "host"))
"""What is read from the simulated switch, UPS, PDU and Linux server."""

_SIMULATE = ("pipelines.cli", "simulate")
_SITES = "101,102,103,104,105,106"
_REGIONS = ("north", "south", "east")
"""Those of the sites, each with a broker and logins of its own: enough to look at, and soon through."""

_DRAIN_SECONDS = 240.0
_QUERIES = (
    "select device_id, sensor_id, window_start, score, threshold, top_feature from gold.anomaly_scores "
    "order by score desc limit 10",
    "select device_id, if_name, window_start, in_bits_per_second from gold.interface_rates_1m limit 10",
    "select stage, reason, count(*) as records from quarantine.records group by all",
)


_SITED = """[[reference]]
name = "sites"
file = "sites.csv"

[[calculation]]
name = "sited_windows_1m"
kind = "lookup"
from = "gold.sensor_windows_1m"
lookup = [{name = "site", from = "reference.sites"}]
select = {site_name = "site.name", region = "site.region", mean = "mean", p95 = "p95"}"""
"""The minutes of the sensors with what is known of their sites."""


@dataclass(frozen=True)
class Options:
    """What ``make demo`` was asked for; ``duration`` in seconds of live data, None for no end."""

    folder: Path
    duration: float | None
    rate: float
    history: str
    port: int
    mqtt_port: int
    snmp_port: int


def config_text(options: Options) -> str:
    """The secchi.toml of the demo; a user may take it as a start."""
    parts = [
        "# Written by make demo.",
        '[lakehouse]\npath = "lake"',
        '[time]\nidle = "10s"',
        *(
            f'[[mqtt]]\nname = "{region}"\nport = {options.mqtt_port + position}\nqos = 1\n'
            f'topics = ["factory_iot/{region}/#"]\n'
            f'username = "secchi-{region}"\npassword = {{file = "passwords/secchi-{region}"}}'
            for position, region in enumerate(_REGIONS)
        ),
        _SITED,
        f"[snmp.modules.system]\nget = {json.dumps(_GETS)}",
        *(f"[snmp.modules.{name}]\nwalk = {json.dumps(roots)}" for name, roots in _WALKS.items()),
    ]
    for position, modules in enumerate(_AGENTS):
        port, names = options.snmp_port + position, json.dumps(modules)
        parts.append(f'[[snmp.targets]]\nhost = "127.0.0.1"\nport = {port}\nmodules = {names}')
    return "\n\n".join(parts) + "\n"


def new_users(region: str, folder: Path) -> tuple[User, User]:
    """The plant that publishes at a region's broker, and the collector that reads there; passwords stand in files."""
    topics = (f"factory_iot/{region}/#",)
    plant = User(f"plant-{region}", secrets.token_urlsafe(16), writes=topics)
    collector = User(f"secchi-{region}", secrets.token_urlsafe(16), reads=topics)
    (folder / "passwords").mkdir(mode=0o700, exist_ok=True)
    for user in (plant, collector):
        (folder / "passwords" / user.name).write_text(user.password)
    return plant, collector


@dataclass
class Demo:
    """The running demo: its children, and what is known of their progress."""

    options: Options
    config_file: Path
    config: Config
    supervisor: Supervisor
    shown: str = field(default="", init=False)
    _context: "Context | None" = field(default=None, init=False)

    @property
    def sent_file(self) -> Path:
        """What the factory recorded as sent."""
        return self.options.folder / "sent.csv"

    @property
    def answered_file(self) -> Path:
        """What the SNMP agents recorded as answered."""
        return self.options.folder / "answered.csv"

    @property
    def context(self) -> "Context":
        """The lakehouse, opened when it is first looked at: the imports would hold up the start."""
        if self._context is None:
            from pipelines.context import open_context

            self._context = open_context(self.config, "demo")
        return self._context

    def start(self) -> None:
        """Starts agents, collectors and Dagster; the factory sends when all is there."""
        run, environment = self.supervisor.start, child_environment(self.config_file, dagster_home(self.config))
        python = [sys.executable, "-W", "ignore", "-m"]
        logins: dict[str, str] = {}
        for port, region in enumerate(_REGIONS, self.options.mqtt_port):
            plant, collector = new_users(region, self.options.folder)
            broker = broker_command(self.options.folder / f"broker-{region}", port, (plant, collector))
            run(Child(f"broker-{region}", broker, environment, _answers(port)))
            logins[_variable(region)] = plant.password
        ports = ",".join(str(self.options.snmp_port + i) for i in range(len(_AGENTS)))
        agents = [*python, *_SIMULATE, "snmp", "--ports", ports, "--answered", str(self.answered_file)]
        first, *rest = stages(self.config, self.config_file, "127.0.0.1", self.options.port)
        collect = next(child for child in first if child.name == "collect")
        first[first.index(collect)] = replace(collect, is_ready=self._is_subscribed)
        run(Child("agents", agents, environment, self.answered_file.exists), *first)
        for stage in rest:
            run(*stage)
        run(Child("factory", [*python, *self._factory()], {**environment, **logins}, has_end=True))

    def _factory(self) -> list[str]:
        command = [*_SIMULATE, "factory", "--sites", _SITES, "--sent", str(self.sent_file)]
        for port, region in enumerate(_REGIONS, self.options.mqtt_port):
            command += ["--broker", f"{region}=127.0.0.1:{port}", "--username", f"{region}=plant-{region}"]
            command += ["--password-env", f"{region}={_variable(region)}"]
        command += ["--rate", str(self.options.rate), "--history", self.options.history]
        if self.options.duration is not None:
            command += ["--duration", str(self.options.duration)]
        return command

    def collectors(self) -> dict[str, dict[str, dict[str, object]]]:
        """The collectors' status file; empty before there is one."""
        path = Instance(self.config.lakehouse.path).status_path
        try:
            status: dict[str, dict[str, dict[str, object]]] = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        return status

    def _is_subscribed(self) -> bool:
        brokers = self.collectors().get("mqtt", {})
        return all(bool(brokers.get(region, {}).get("connected")) for region in _REGIONS)

    def landed(self) -> int:
        """Readings that are durable in landing."""
        return int(str(self.collectors().get("landing", {}).get("mqtt_messages", {}).get("durable", 0)))

    def rows(self, identifier: str) -> int:
        """Rows of a table, from its snapshot's summary."""
        stored = self.context.tables[identifier].stored
        if not self.context.lakehouse.exists(stored):
            return 0
        snapshot = self.context.lakehouse.table(stored, refresh=True).current_snapshot()
        return int(snapshot.summary.get("total-records") or 0) if snapshot and snapshot.summary else 0

    def show(self) -> None:
        """Prints the one live status line; a new line every ten seconds where there is no terminal."""
        # Downstream first: what is counted later is never less.
        figures = {
            "quarantined": self.rows("quarantine.records"),
            "snmp": self.rows("silver.snmp_samples"),
            "scored": self.rows("gold.anomaly_scores"),
            "windows": self.rows("gold.sensor_windows_1m"),
            "silver": self.rows("silver.sensor_readings"),
            "bronze": self.rows("bronze.mqtt_messages"),
            "landed": self.landed(),
            "sent": _line_count(self.sent_file),
        }
        line = "  ".join(f"{name} {count:,}" for name, count in reversed(figures.items()))
        if sys.stdout.isatty():
            print(f"\r\x1b[2K{line}", end="", flush=True)
        elif line != self.shown:
            print(line, flush=True)
        self.shown = line

    def watch(self, until: Callable[[], bool]) -> bool:
        """Shows progress until something is so; False when a signal asked for the end."""
        pause = 1.0 if sys.stdout.isatty() else 10.0
        next_line = time.monotonic()
        while not until():
            if time.monotonic() >= next_line:
                self.show()
                next_line = time.monotonic() + pause
            if not self.supervisor.wait(0.5):
                return False
        return True


def _variable(region: str) -> str:
    """The environment variable with the password of a region's plant."""
    return f"PLANT_{region.upper()}_PASSWORD"


def _answers(port: int) -> Callable[[], bool]:
    import socket

    def probe() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    return probe


def _line_count(path: Path) -> int:
    """Lines after the header."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) - 1)


def is_drained(demo: Demo) -> bool:
    """Whether all that landed is in gold, every sensor window final and scored, and a model trained if one can be."""
    from pipelines.micro_batch import is_behind
    from pipelines.readiness import is_ready
    from pipelines.training import has_model, windows_table
    from resources.selection import Among

    context = demo.context
    if is_behind(context) is not None or (is_ready(context) and not has_model(context)):
        return False
    windows = windows_table(context.tables).stored
    return context.lakehouse.read(windows, Among("is_final", [False]), columns=["window_start"]).is_empty()


def _in_time(what: str, condition: Callable[[], bool]) -> Callable[[], bool]:
    deadline = time.monotonic() + _DRAIN_SECONDS

    def check() -> bool:
        if time.monotonic() > deadline:
            raise SourceUnavailableError(f"demo: {what} took longer than {_DRAIN_SECONDS:.0f} s")
        return condition()

    return check


def run_bounded(demo: Demo) -> int:
    """Waits for the factory's end, drains, runs the suites, audits; returns the exit code."""
    supervisor = demo.supervisor
    if not demo.watch(lambda: supervisor.has_ended("factory")):
        return 130
    supervisor.stop("collect")  # the polls in flight end and land
    supervisor.stop("agents")
    if not demo.watch(_in_time("draining", lambda: is_drained(demo))):
        return 130
    from pipelines.demo_suites import run_suites

    failures, warnings = run_suites(
        demo.config, demo.config_file, lambda is_over: demo.watch(_in_time("the last runs", is_over))
    )
    for line in (*warnings, *failures):
        print(f"\n{line}", end="")
    landed = demo.landed()
    supervisor.stop()
    from pipelines.demo_audit import audit

    result = audit(demo.context, demo.sent_file, demo.answered_file, landed, len(failures))
    print(f"\n{result.line()}", flush=True)
    return 0 if result.is_good else 1


def run(options: Options) -> int:
    """Runs the demo; returns the exit code."""
    require_free("127.0.0.1", options.port, "choose another: make demo PORT=3001")
    for port in range(options.mqtt_port, options.mqtt_port + len(_REGIONS)):
        require_free("127.0.0.1", port, "python -m pipelines.demo takes others with --mqtt-port")
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    config_file = options.folder / "secchi.toml"
    config_file.write_text(config_text(options))
    write_sites(options.folder / "sites.csv", load_catalogue())
    config = load_config(config_file)
    with Supervisor(config.lakehouse.path / "logs", lambda line: print(f"\nsecchi demo: {line}")) as supervisor:
        demo = Demo(options, config_file, config, supervisor)
        print(f"Starting an empty lakehouse in {options.folder} and all processes ...", flush=True)
        demo.start()
        if supervisor.is_stopping:
            return 130
        print(f"The plant sends {options.history} of history, then live. Look at it:")
        print(f"  http://127.0.0.1:{options.port}/asset-groups    the graph of the assets")
        print(f"  http://127.0.0.1:{options.port}/assets          the catalogue: each asset with checks and plots")
        for query in _QUERIES:
            print(f'  {Path(sys.executable).parent}/secchi --config {config_file.absolute()} sql "{query}"')
        print("Ctrl-C ends it and every process of it.", flush=True)
        if options.duration is not None:
            return run_bounded(demo)
        demo.watch(lambda: False)
        print(f"\nStopped; the data stays in {options.folder} until the next make demo.")
        return 0


def main() -> int:
    """Parses the command line and runs the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".secchi/demo"), help="emptied at the start")
    parser.add_argument("--duration", type=float, help="seconds of live data; without it the demo runs until Ctrl-C")
    parser.add_argument("--rate", type=float, default=200.0, help="live readings a second")
    parser.add_argument("--history", default="6h", help="readings from so long ago are sent first")
    parser.add_argument("--port", type=int, default=3000, help="port of the web UI")
    parser.add_argument("--mqtt-port", type=int, default=18830, help="first of three ports")
    parser.add_argument("--snmp-port", type=int, default=20161, help="first of four ports")
    try:
        return run(Options(**vars(parser.parse_args())))
    except SecchiError as error:
        print(f"secchi demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
