"""great_circle_km in expressions: against an independent formula, and where rounding would go wrong."""

from math import acos, asin, atan2, cos, hypot, isclose, pi, radians, sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.expressions import open_sandbox, parse_expression
from resources.errors import ConfigurationError
from resources.geodesy import EARTH_RADIUS_KM

Point = tuple[float, float]


def distance(a: Point, b: Point) -> float:
    with open_sandbox() as connection:
        call = parse_expression(connection, f"great_circle_km({a[0]}, {a[1]}, {b[0]}, {b[1]})", [], "here")
        row = connection.execute(f"SELECT {call.sql}").fetchone()
    assert row is not None
    return float(row[0])


def vincenty(a: Point, b: Point) -> float:
    """The form of T. Vincenty (Survey Review 23, 1975) for a sphere, right at every distance."""
    (p, x), (q, y) = ((radians(v[0]), radians(v[1])) for v in (a, b))
    across = hypot(cos(q) * sin(y - x), cos(p) * sin(q) - sin(p) * cos(q) * cos(y - x))
    return EARTH_RADIUS_KM * atan2(across, sin(p) * sin(q) + cos(p) * cos(q) * cos(y - x))


points = st.tuples(st.floats(-90, 90, width=32), st.floats(-180, 180, width=32))


@given(points, points)
@settings(max_examples=50)
def test_it_is_the_distance_on_the_sphere(a: Point, b: Point) -> None:
    # The haversine loses digits only near the opposite point: half of them, which is a decimetre.
    assert isclose(distance(a, b), vincenty(a, b), rel_tol=1e-9, abs_tol=1e-3)
    assert distance(a, b) == distance(b, a)


def test_places() -> None:
    durban, cape_town = (-29.8587, 31.0218), (-33.9249, 18.4241)
    assert distance(durban, durban) == 0
    assert 1260 < distance(durban, cape_town) < 1285
    assert isclose(distance((0, 0), (0, 180)), pi * EARTH_RADIUS_KM)
    assert isclose(distance((90, 0), (-90, 0)), pi * EARTH_RADIUS_KM)
    assert isclose(distance((0, 179.5), (0, -179.5)), 2 * asin(sin(radians(0.5))) * EARTH_RADIUS_KM)
    assert isclose(distance((0, 0), (0, 90)), acos(0) * EARTH_RADIUS_KM)


def test_unknown_point_has_no_distance() -> None:
    with open_sandbox() as connection:
        call = parse_expression(connection, "great_circle_km(NULL, 1, 2, 3)", [], "here")
        assert connection.execute(f"SELECT {call.sql}").fetchone() == (None,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("great_circle_km(1, 2)", "great_circle_km takes latitude and longitude of two points, got 2 arguments"),
        ("great_circle(1, 2, 3, 4)", "did you mean 'great_circle_km'?"),
    ],
)
def test_mistake_is_named(text: str, message: str) -> None:
    with open_sandbox() as connection, pytest.raises(ConfigurationError) as error:
        parse_expression(connection, text, [], "here")
    assert message in str(error.value)
