"""The product's definitions, in processes of which one kills itself at the point that a file names.

The file is named by the variable KILL_FILE and is removed by the process that dies, so that the next one lives.
"""

import os
from pathlib import Path

from pipelines.definitions import definitions
from tests.faults.carry import arm
from tests.faults.points import KILL_FILE, die

__all__ = ["definitions"]


def arm_once(path: Path) -> None:
    def die_once() -> None:
        if path.exists():
            path.unlink()
            die()

    if path.exists():
        arm(path.read_text(), die_once)


arm_once(Path(os.environ[KILL_FILE]))
