"""Sketches of quantiles that can be merged, as SQL.

A sketch counts values in buckets whose bounds grow by a constant factor, so that the middle of a bucket is within
``RELATIVE_ERROR`` of each value in it (C. Masson, J. E. Rim, H. K. Lee, "DDSketch", PVLDB 12, 2019; here without its
limit on the number of buckets). Sketches are merged by adding counts: the same values give the same sketch, in whatever
order and parts they came.

A sketch is a list of integers, one a bucket, in order of the values: number of the bucket times 2^40, plus its count.
"""

from math import exp, log

RELATIVE_ERROR = 0.01
"""A quantile of a sketch is at most this share off the exact, interpolated one (both its neighbours of one sign)."""

_WIDTH = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_MIDDLE = log((1 + exp(_WIDTH)) / 2)
_LARGEST = "1.797e308"
# Positive values are in the buckets from 2,777 on, negative ones in those of the negated numbers. Number 0 is of none:
# the counts of a histogram, which are a list of integers too, would have it.
_ZERO, _ONE = 1, 40_000

_SIZE = "CAST(abs(x) AS DOUBLE)"
_BUCKET = (
    f"CASE WHEN x IS NULL OR isnan({_SIZE}) THEN NULL WHEN x = 0 THEN {_ZERO}"
    f" ELSE CAST(sign(x) * (ceil(ln(least({_SIZE}, {_LARGEST})) / {_WIDTH!r}) + {_ONE}) AS BIGINT) END"
)
_BUCKETS = (
    "(SELECT bucket, CAST(sum(held) AS BIGINT) AS held FROM"
    " (SELECT if(code >> 40 = 0, error('this is no sketch'), code >> 40) AS bucket, code & 1099511627775 AS held"
    " FROM (SELECT unnest(flatten(list(s))) AS code)) GROUP BY bucket)"
)
_COUNTED = (
    "(SELECT list(bucket ORDER BY bucket) AS buckets, list(held ORDER BY bucket) AS helds,"
    # quantile_cont(0, p) is 0; it refuses a p that is no share, and takes a negative one from the other end.
    f" if(p < 0, 1 + p, p) * (sum(held) - 1) + quantile_cont(0, p) AS place FROM {_BUCKETS})"
)
# A window function would sort by the list that is unnested, which takes a thousand times as long.
_UPTO = (
    "(SELECT buckets, place, list_transform(range(1, len(helds) + 1), lambda i: list_sum(helds[1:i])) AS uptos"
    f" FROM {_COUNTED})"
)


def _bucket_at(place: str) -> str:
    return f"buckets[len(list_filter(uptos, lambda upto: upto <= {place})) + 1]"


def _value(bucket: str) -> str:
    size = f"least(exp((abs({bucket}) - {_ONE}) * {_WIDTH!r} - {_MIDDLE!r}), {_LARGEST})"
    return f"CASE WHEN {bucket} = {_ZERO} THEN 0.0 ELSE sign({bucket}) * {size} END"


SKETCH_FUNCTIONS = {
    "sketch": (
        "x",
        f"list_transform(map_entries(histogram({_BUCKET})),"
        " lambda held: held.key * 1099511627776 + CAST(held.value AS BIGINT))",
    ),
    "sketch_merge": ("s", f"(SELECT list(bucket * 1099511627776 + held ORDER BY bucket) FROM {_BUCKETS})"),
    "sketch_quantile": (
        "s, p",
        f"(SELECT (1 - place + floor(place)) * {_value('low')} + (place - floor(place)) * {_value('high')} FROM"
        f" (SELECT place, {_bucket_at('floor(place)')} AS low, {_bucket_at('ceil(place)')} AS high FROM {_UPTO}))",
    ),
}
"""Aggregates, by name: parameters and body; ``sketch`` is of values, the others are of sketches."""
