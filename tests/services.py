"""Real daemons for tests: free ports, and binaries that are required or skipped."""

import os
import shutil
import socket

import pytest


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_binary(name: str) -> str:
    """Path of a daemon's binary; without it the test skips, or fails where REQUIRE_SERVICES=1."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if path:
        return path
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{name} is not installed and REQUIRE_SERVICES=1")
    pytest.skip(f"{name} is not installed")
