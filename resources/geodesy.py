"""Distances on the earth, as SQL.

The haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984) on a sphere with the mean
radius R1 = 6371.0088 km (H. Moritz, "Geodetic Reference System 1980", Journal of Geodesy 74, 2000). The earth is
flattened: against the ellipsoid a distance is off by 0.6 % at the most.
"""

EARTH_RADIUS_KM = 6371.0088

GREAT_CIRCLE = "great_circle_km"
"""Name of the function: the way along the surface between two points, given as degrees of latitude and longitude."""
GREAT_CIRCLE_PARAMETERS = "latitude_a, longitude_a, latitude_b, longitude_b"
_HAVERSINE = (
    "(sin(radians(latitude_b - latitude_a) / 2) * sin(radians(latitude_b - latitude_a) / 2)"
    " + cos(radians(latitude_a)) * cos(radians(latitude_b))"
    " * sin(radians(longitude_b - longitude_a) / 2) * sin(radians(longitude_b - longitude_a) / 2))"
)
# By rounding it may be more than 1 for points that lie opposite; least(1, ...) would make 1 of an unknown point.
GREAT_CIRCLE_SQL = f"2 * {EARTH_RADIUS_KM} * atan2(sqrt({_HAVERSINE}), sqrt(abs(1 - {_HAVERSINE})))"
