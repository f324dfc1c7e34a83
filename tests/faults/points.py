"""Named points: what is patched into a process of the product so that it kills itself there with SIGKILL."""

import importlib
import os
import signal
from collections.abc import Callable
from typing import Any

KILL_FILE = "SECCHI_TEST_KILL_FILE"
"""Variable with the path of a file that names the point at which one of Dagster's processes dies."""


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def patch(place: str, name: str, wrap: Callable[[Any], Any]) -> None:
    """Replaces ``module:Class``'s or ``module``'s function by what ``wrap`` makes of it."""
    owner: Any = importlib.import_module(place.split(":")[0])
    for part in place.split(":")[1:]:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


def around(when: str, is_it: Callable[..., bool], kill: Callable[[], None] = die) -> Callable[[Any], Any]:
    """Kills before or after the call for which ``is_it`` is true of its arguments."""

    def wrap(original: Any) -> Any:
        def patched(*arguments: Any, **options: Any) -> Any:
            if when == "before" and is_it(*arguments):
                kill()
            result = original(*arguments, **options)
            if when == "after" and is_it(*arguments):
                kill()
            return result

        return patched

    return wrap
