"""Cron texts: nothing is accepted that Dagster would refuse at its start."""

import pytest
from dagster._utils.schedules import is_valid_cron_string
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipelines.settings.cron import Cron

CRON = TypeAdapter(Cron)
NUMBERS = st.integers(0, 70).map(str)
PARTS = st.one_of(
    st.just("*"), NUMBERS, st.tuples(NUMBERS, NUMBERS).map("-".join), st.tuples(st.just("*"), NUMBERS).map("/".join)
)
FIELDS = st.lists(PARTS, min_size=1, max_size=2).map(",".join)


def is_accepted(text: str) -> bool:
    try:
        CRON.validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    "text", ["*/10 * * * *", "0 3 * * *", "5,35 8-18/2 1 JAN-mar mon", "0 0 * * 7", " 0  3 * * * ", "0 0 29 2 *"]
)
def test_cron_text(text: str) -> None:
    assert is_accepted(text) and is_valid_cron_string(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hourly", r"must be a cron expression like '\*/30 \* \* \* \*'"),
        ("", "must be a cron expression"),
        ("* * * * * *", "must be a cron expression"),
        ("61 * * * *", "minute must be from 0 to 59, got '61"),
        ("*/0 * * * *", "the step of minute must be from 1 to 59"),
        ("0 0 * january *", "'january' is no month"),
        ("0 0 30 2 *", "no such month has a day 30"),
        ("0 0 31,30-31 feb *", "no such month has a day"),
        ("0 0 1 mon *", "'mon' is no month"),
    ],
)
def test_text_that_is_no_cron(text: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        CRON.validate_python(text)


@given(st.lists(FIELDS, min_size=4, max_size=6).map(" ".join))
@example("0 0 30,31 2 *")
@example("0 0 31-30/7 2 *")
@example("0 0 31 11-1/5 *")
def test_what_is_accepted_dagster_accepts_too(text: str) -> None:
    assert not is_accepted(text) or is_valid_cron_string(text)
