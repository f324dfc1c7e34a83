"""gold.interface_scores."""

from assets.gold.interface_rates_1m import interface_rates_1m
from assets.scoring import scores_of
from ml.groups import Group

INTERFACE = Group(
    name="interface",
    source=interface_rates_1m.identifier,
    by=("device_id", "interface_id"),
    values=("in_bits_per_second", "out_bits_per_second", "steps_reset", "steps_gap", "steps_implausible"),
    categories=("speed_bits_per_second",),
)

interface_scores = scores_of(
    INTERFACE,
    interface_rates_1m,
    """One row a final minute of an interface and column of its counters: how unusual it is beside the others.

    Source: the final rows of `{source}`, by {by}: both rates, resets, gaps and implausible steps of the counters, and
    the link's speed, by how rarely it came. A corrected minute is judged again. Until there is a model, a number is
    compared with its own last minutes; where that cannot be, `reason` says why.
    """,
)
