"""Processes that run together: started, kept running, and all of them gone at the end.

Every child leads a session of its own. So a Ctrl-C in the terminal reaches the supervisor alone, and whatever a child
has started (code servers, workers of runs) is found by its session and ends with it.
"""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType

from resources.errors import SourceUnavailableError
from resources.process_lock import ProcessLock

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL = 0.2
_GRACE = 2.0  # all is gone within five seconds of a Ctrl-C, and nothing here is hurt by SIGKILL
_KILL_WAIT = 1.0
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
_LONG_ENOUGH = 60.0
_LOG_BYTES = 10 * 2**20
_LIBC, _PDEATHSIG = ctypes.CDLL(None), 1


def up_lock(lakehouse: Path) -> ProcessLock:
    """Held by ``secchi up``."""
    return ProcessLock(lakehouse / "status" / "up.lock")


@dataclass(frozen=True)
class Child:
    """A process to run: its name in messages and of its log, its command, and what is added to the environment.

    ``is_ready``, where given, is waited for before ``Supervisor.start`` returns. A ``has_end`` child that ends with
    exit code 0 has done its work and is not started again.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] | None = None
    has_end: bool = False


@dataclass
class _Running:
    child: Child
    process: subprocess.Popen[bytes]
    started_at: float
    deaths: int = 0
    restart_at: float | None = None
    is_swept: bool = False  # dead, with all it had started: from here on its number may be another process's


class Supervisor:
    """Runs children until it is left; used as a context manager, from the main thread.

    Inside, SIGINT, SIGTERM and SIGHUP only set ``is_stopping``, and SIGUSR1 lets ``run`` return. That also gives the
    children the default action of these signals: a handled signal is reset in a new program, whereas one that was
    ignored (``secchi up &`` in a script) would stay ignored. Only an ignored SIGHUP stays so: that is ``nohup``.
    """

    def __init__(self, logs: Path, report: Callable[[str], None]) -> None:
        self._logs, self._report = logs, report
        self._running: dict[str, _Running] = {}
        self._stop, self._change = threading.Event(), threading.Event()
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "Supervisor":
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in _SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._handlers[number] = signal.signal(number, lambda *_: self._stop.set())
        self._handlers[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda *_: self._change.set())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @property
    def is_stopping(self) -> bool:
        """Whether a signal asked for the end."""
        return self._stop.is_set()

    def log_path(self, name: str) -> Path:
        """The log of a child."""
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The process of a child; None while it is dead."""
        process = self._running[name].process
        return process.pid if process.poll() is None else None

    def start(self, *children: Child, ready_within: float = 120.0) -> None:
        """Starts children at once and waits until all are ready; one that dies meanwhile is restarted as ever.

        Raises:
            SourceUnavailableError: one was not ready in time (seconds).
        """
        if self.is_stopping:
            return
        for child in children:
            self._running[child.name] = _Running(child, self._spawn(child), time.monotonic())
        deadline = time.monotonic() + ready_within
        for child in children:
            while child.is_ready and not child.is_ready() and self.wait(_POLL):
                if time.monotonic() > deadline:
                    log = self.log_path(child.name)
                    raise SourceUnavailableError(f"{child.name}: not ready after {ready_within:g} s; see {log}")

    def has_ended(self, name: str) -> bool:
        """Whether a child has done its work, or was ended."""
        running = self._running.get(name)
        return running is None or (running.child.has_end and running.process.poll() == 0)

    def run(self) -> bool:
        """Keeps the children running until a signal asks for a change (SIGUSR1): True, or for the end: False."""
        while self.wait(_POLL):
            if self._change.is_set():
                self._change.clear()
                return True
        return False

    def wait(self, seconds: float) -> bool:
        """Keeps the children running for a while; returns False at once when the end is asked for."""
        deadline = time.monotonic() + seconds
        while not self.is_stopping:
            for running in self._running.values():
                self._tend(running)
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            self._stop.wait(min(left, _POLL))
        return False

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        path = self.log_path(child.name)
        with suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            log.write(f"--- {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} starting {child.name}\n".encode())
            log.flush()
            return subprocess.Popen(
                child.command,
                env={**os.environ, **child.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def _tend(self, running: _Running) -> None:
        now = time.monotonic()
        if running.restart_at is not None and now >= running.restart_at:
            running.process = self._spawn(running.child)
            running.started_at, running.restart_at, running.is_swept = now, None, False
        code = running.process.poll()
        if code is None or running.is_swept or running.restart_at is not None:
            return
        # What it left would be in the way of the next one.
        running.is_swept = _gone([running.process], _KILL_WAIT, kill=True)
        if code == 0 and running.child.has_end:
            return
        running.deaths = 1 if now - running.started_at > _LONG_ENOUGH else running.deaths + 1
        delay = min(_FIRST_DELAY * 2 ** (running.deaths - 1), _LONGEST_DELAY)
        running.restart_at = now + delay
        name = running.child.name
        self._report(f"{name} {_ending(code)}; it is started again in {delay:g} s, its log is {self.log_path(name)}")

    def stop(self, *names: str) -> None:
        """Ends the named children, or all, and what they started: SIGTERM, and after a grace SIGKILL."""
        ended = [self._running.pop(name) for name in names or list(self._running)]
        left = [running.process for running in ended if not running.is_swept]
        for process in left:
            _signal_session(process.pid, signal.SIGTERM)
        if not _gone(left, _GRACE):
            _gone(left, _KILL_WAIT, kill=True)


def _end_with_parent() -> None:
    """Asks the kernel for a SIGTERM when the supervisor is gone, kill -9 included (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PDEATHSIG, signal.SIGTERM)


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _gone(processes: Sequence[subprocess.Popen[bytes]], seconds: float, *, kill: bool = False) -> bool:
    """Whether all sessions are empty within a time; ``kill`` kills what is found, until nothing is."""
    deadline = time.monotonic() + seconds
    while True:
        left = [p for p in processes if p.poll() is None or _members(p.pid)]
        if not left or time.monotonic() > deadline:
            return not left
        for process in left if kill else ():
            _signal_session(process.pid, signal.SIGKILL)
        time.sleep(0.05)


def _signal_session(session: int, number: signal.Signals) -> None:
    for pid in _members(session):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _members(session: int) -> list[int]:
    """The living processes of a session, in whatever process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # After the name, which may hold anything: state, parent, process group, session (proc(5)).
            state, _, _, leader = entry.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(leader) == session and state not in "ZX":
                found.append(int(entry.parent.name))
    return found
