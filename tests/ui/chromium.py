"""Pages as a browser shows them."""

import html
import re
import subprocess
from pathlib import Path

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,4800",  # the catalogue draws no rows beyond it
)
_ATTEMPTS = 4


class Browser:
    """Headless Chromium with a profile of its own."""

    def __init__(self, binary: str, profile: Path) -> None:
        self._command = [binary, *_FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"]

    def text(self, address: str, *expected: str) -> str:
        """The text of a page; loaded again while something expected is not there yet, on a busy machine."""
        text = ""
        for _ in range(_ATTEMPTS):
            done = subprocess.run([*self._command, address], capture_output=True, timeout=120, check=True)
            text = _visible(done.stdout.decode())
            if all(part in text for part in expected):
                break
        return text


def _visible(document: str) -> str:
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", document, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))
