import json

import pytest

from resources.topics import (
    TopicParts,
    check_filter,
    have_topics_in_common,
    is_broker_state,
    matching,
    subscription,
)


@pytest.mark.parametrize(
    ("value", "topic", "parts"),
    [
        ("factory_iot/{region}/{site}", "factory_iot/north/101", {"region": "north", "site": "101"}),
        ("factory_iot/{region}/+/#", "factory_iot/north/101", {"region": "north"}),
        ("factory_iot/{region}/#", "factory_iot/north", {"region": "north"}),
        ("$share/g/{a}/b", "x/b", {"a": "x"}),
        ("{a}/{b2}", "/", {"a": "", "b2": ""}),
        ("a.b/{c}", "a.b/d\ne", {"c": "d\ne"}),
        ("a.b/{c}", "axb/d", None),
        ("a/{c}", "a/b/c", None),
        ("a/+", "a/b", None),
    ],
)
def test_named_parts(value: str, topic: str, parts: dict[str, str] | None) -> None:
    found = TopicParts([check_filter(value)]).of(topic)
    assert (json.loads(found) if found else None) == parts


def test_the_first_filter_that_names_parts_and_matches_decides() -> None:
    parts = TopicParts(["#", "a/{first}", "{second}/b"])
    assert [parts.of(t) for t in ("a/b", "c/b", "c/d", "a/b")] == [
        '{"first": "b"}',
        '{"second": "c"}',
        None,
        '{"first": "b"}',
    ]


def test_names_are_not_told_to_the_broker() -> None:
    assert subscription("$share/g/factory_iot/{region}/+/#") == "$share/g/factory_iot/+/+/#"


def test_topics_that_a_filter_takes() -> None:
    topics = ["a", "a/b", "a/b/c", "b/a", "ab", "a/"]
    assert matching(topics, ["a/#"]) == ["a", "a/b", "a/b/c", "a/"]
    assert matching(topics, ["a/+/#"]) == ["a/b", "a/b/c", "a/"]
    assert matching(topics, ["$share/g/{x}/a", "ab"]) == ["b/a", "ab"]
    assert matching(topics, []) == []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#", "a/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/+", "a/#", True),
        ("+/b", "a/+", True),
        ("$share/g/a/{x}", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/b", "a/c", False),
        ("b/#", "a/#", False),
        ("+/b", "a/c", False),
    ],
)
def test_filters_with_topics_in_common(one: str, other: str, expected: bool) -> None:
    assert have_topics_in_common(one, other) is have_topics_in_common(other, one) is expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "1 to 65,535 bytes"),
        ("a\0b", "without NUL"),
        ("x" * 65_536, "1 to 65,535 bytes"),
        ("a#", "'#' that is not the whole last level"),
        ("a/#/b", "'#' that is not the whole last level"),
        ("a+", "'\\+' that is not a whole level"),
        ("$SYS/#", "the broker's own state"),
        ("$share/g/$SYS/#", "the broker's own state"),
        ("$share/g", "must be '\\$share/<group>/<filter>'"),
        ("$share//a", "must be '\\$share/<group>/<filter>'"),
        ("$share/g+/a", "must be '\\$share/<group>/<filter>'"),
        ("a/{B}", "not a whole level like '{region}'"),
        ("a/x{b}", "not a whole level like '{region}'"),
        ("{a}/{a}", "names two levels alike"),
    ],
)
def test_a_filter_that_cannot_be_subscribed_to_is_refused(value: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_filter(value)


def test_what_the_broker_says_of_itself_is_told_apart() -> None:
    assert [is_broker_state(t) for t in ("$SYS/broker/uptime", "$SYSTEM/a", "a/$SYS/b")] == [True, False, False]
