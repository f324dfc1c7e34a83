"""What the quantities of a window owe to the number of its readings: the spread of two is not that of a hundred.

A sender that reports more often is no fault, but the range of its windows widens. How far depends on what moves the
sensor: of independent readings as the constants d2 and c4 of Shewhart's charts do (Montgomery, "Introduction to
Statistical Quality Control", appendix VI; ASTM E2587); of a slow drift hardly. So a quantity is compared with what is
usual as it is and as if it were of as many independent readings as are usual, and counts as far as both agree.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

from ml.quantities import SPAN, Floats, Ordered

OF_READINGS = ("spread", "slope", "range", "tail")
"""The quantities that a window with one reading does not tell."""

_TOP = 0.99


def usual_readings(windows: Ordered, learned: Floats) -> Floats:
    """The logarithm of the number of readings that is usual at each window: the learned one, or one that became so.

    The second is the least of the windows from ``SPAN`` - 1 down to half of it before, where none is missing: a sender
    that came to report more often is held to that, a single crowded window changes nothing.
    """
    least = windows.measured["readings"]
    step = 1
    while step < SPAN // 2:
        least = np.minimum(least, windows.lagged(least, step)[0])
        step *= 2
    return np.asarray(np.fmax(learned, windows.lagged(least, step)[0]))


def expected(name: str, readings: Floats) -> Floats:
    """What a quantity of ``OF_READINGS`` is on average in so many independent normal readings of deviation 1.

    The slope has no sign here: it is the share of a window that its readings span. NaN for one reading or none.
    """
    return np.array([_EXPECTED[name](count) if count > 1 else np.nan for count in readings.tolist()], dtype=np.float64)


def _spread(readings: float) -> float:
    """c4, by Montgomery's approximation."""
    return 4 * (readings - 1) / (4 * readings - 3)


def _slope(readings: float) -> float:
    return 1 - 1 / readings


def _range(readings: float) -> float:
    """d2: the highest reading's distance from the lowest's, which lies as far to the other side."""
    return 2 * _ordered(readings, readings)


def _tail(readings: float) -> float:
    place = 1 + (readings - 1) * _TOP
    below = np.floor(place)
    high = _ordered(min(below + 1, readings), readings)
    low = _ordered(below, readings)
    return float(low + (place - below) * (high - low))


def _ordered(place: float, readings: float) -> float:
    """Where the reading of this place in ascending order lies (Blom, "Statistical Estimates", 1958)."""
    return NormalDist().inv_cdf((place - 0.375) / (readings + 0.25))


_EXPECTED = {"spread": _spread, "slope": _slope, "range": _range, "tail": _tail}


def factors(readings: Floats, usual: Floats) -> Iterator[tuple[str, Floats]]:
    """For each of ``OF_READINGS`` what makes windows as if they were of the usual number of readings.

    Args:
        readings: how many each window has.
        usual: how many are usual in its series.
    """
    counts, place = np.unique(np.concatenate([readings, usual]), return_inverse=True)
    for name in OF_READINGS:
        now, then = np.split(expected(name, counts)[place], 2)
        yield name, then / now
