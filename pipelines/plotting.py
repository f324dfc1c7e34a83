"""Plots: of characters in the terminal, and as PNG."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT, WIDTH = 9, 72
_DOT, _BAND, _MARK = "•", "░", "◆"


def text_plot(values: Sequence[float | None], band: tuple[float, float], marked: int) -> list[str]:
    """Lines of a plot of at most ``WIDTH`` values: the band shaded, one value of them marked, numbers at the left."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min([*known, band[0]]), max([*known, band[1]])
    step = (high - low) / (HEIGHT - 1) or 1.0
    lines = []
    for level in reversed(range(HEIGHT)):
        at = low + level * step
        cells = [_cell(value, at, step, band, position == marked) for position, value in enumerate(values)]
        lines.append(f"{at:>12.6g} │{''.join(cells)}")
    return lines


def _cell(value: float | None, at: float, step: float, band: tuple[float, float], is_marked: bool) -> str:
    if value is not None and abs(value - at) <= step / 2:
        return _MARK if is_marked else _DOT
    return _BAND if band[0] - step / 2 <= at <= band[1] + step / 2 else " "


def figure(title: str, rows: int = 1, widths: Sequence[float] = (1.0,)) -> "tuple[Figure, list[Axes]]":
    """A figure with ``rows`` of plots, each as many as there are widths; those of a column share an axis of time.

    It needs no display.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 3 + 2 * rows), layout="constrained")
    drawn.suptitle(title, fontsize=9)
    plots = drawn.subplots(rows, len(widths), sharex="col", squeeze=False, width_ratios=widths)
    return drawn, list(plots.flat)


def shade(axes: "Axes", spans: Sequence[tuple[datetime, datetime]], color: str, label: str) -> None:
    """Marks spans of time; the label is told once."""
    for position, (low, high) in enumerate(spans):
        told = None if position else label
        axes.axvspan(low, high, color=color, alpha=0.2, linewidth=0, label=told)  # type: ignore[arg-type]


def write_png(drawn: "Figure", path: Path) -> None:
    """Writes a figure.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, format="png", dpi=120)
