"""MQTT topic filters (MQTT 5.0 section 4.7), with names for the parts of a topic that are to be kept.

``factory_iot/{region}/+`` subscribes to ``factory_iot/+/+``; of a topic that matches, ``region`` is kept.
``$share/group/filter`` is a shared subscription (section 4.8.2): each message goes to one of the group's members.
"""

import json
import re
from collections.abc import Iterable
from itertools import zip_longest

_SHARE = "$share/"
_NAMED = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_MOST_TOPICS = 10_000


def check_filter(value: str) -> str:
    """Returns the filter if it can be subscribed to.

    Raises:
        ValueError: what is wrong with it.
    """
    if not value or "\0" in value or len(value.encode()) > 65_535:
        raise ValueError("must be a topic filter of 1 to 65,535 bytes without NUL")
    group, levels = _split(value)
    if group is not None and (not group or re.search(r"[+#{}]", group) or levels == [""]):
        raise ValueError(f"must be '$share/<group>/<filter>' with a group without '+' and '#', got {value!r}")
    if levels[0] == "$SYS":
        raise ValueError("is the broker's own state ($SYS), which is not collected")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise ValueError(f"has '#' that is not the whole last level of the filter, got {value!r}")
    if any("+" in level and level != "+" for level in levels):
        raise ValueError(f"has '+' that is not a whole level of the filter, got {value!r}")
    names = [match[1] for level in levels if (match := _NAMED.fullmatch(level))]
    if any(("{" in level or "}" in level) and not _NAMED.fullmatch(level) for level in levels):
        raise ValueError(
            f"has '{{' or '}}' that is not a whole level like '{{region}}': small letters, digits, '_'; got {value!r}"
        )
    if len(set(names)) < len(names):
        raise ValueError("names two levels alike")
    return value


def is_shared(value: str) -> bool:
    """Whether the filter is a shared subscription."""
    return value.startswith(_SHARE)


def subscription(value: str) -> str:
    """The filter that the broker is given: names become '+'."""
    return "/".join("+" if _NAMED.fullmatch(level) else level for level in value.split("/"))


def topic_pattern(value: str) -> re.Pattern[str]:
    """What a topic that the filter takes matches as a whole."""
    return _pattern(_split(value)[1])


def matching(topics: Iterable[str], filters: Iterable[str]) -> list[str]:
    """Those of the topics that one of the filters takes."""
    patterns = [topic_pattern(each) for each in filters]
    return [topic for topic in topics if any(pattern.fullmatch(topic) for pattern in patterns)]


def have_topics_in_common(one: str, other: str) -> bool:
    """Whether there can be a topic that both filters take."""
    ours, theirs = _split(subscription(one))[1], _split(subscription(other))[1]
    for level, another in zip_longest(ours, theirs):
        if "#" in (level, another):
            return True
        if None in (level, another) or (level != another and "+" not in (level, another)):
            return False
    return True


def is_broker_state(topic: str) -> bool:
    """Whether the broker publishes there about itself."""
    return topic.startswith("$SYS/")


class TopicParts:
    """What filters with names keep of a topic; the first filter that matches decides."""

    def __init__(self, filters: Iterable[str]) -> None:
        named = (value for value in filters if _NAMED.search(value))
        self._patterns = [_pattern(_split(value)[1]) for value in named]
        self._known: dict[str, str | None] = {}

    def of(self, topic: str) -> str | None:
        """The named parts as a JSON object of strings; None if no filter names any."""
        if not self._patterns:
            return None
        if topic not in self._known:
            if len(self._known) >= _MOST_TOPICS:
                self._known.clear()
            matches = (pattern.fullmatch(topic) for pattern in self._patterns)
            first = next(filter(None, matches), None)
            self._known[topic] = json.dumps(first.groupdict(), ensure_ascii=False) if first else None
        return self._known[topic]


def _split(value: str) -> tuple[str | None, list[str]]:
    """The group of a shared subscription, and the levels of the filter."""
    if not is_shared(value):
        return None, value.split("/")
    group, _, rest = value.removeprefix(_SHARE).partition("/")
    return group, rest.split("/")


def _pattern(levels: list[str]) -> re.Pattern[str]:
    pattern = ""
    for number, level in enumerate(levels):
        slash = "/" if number else ""
        if level == "#":
            # It also matches the level above (4.7.1.2).
            pattern += f"(?:{slash}.*)?"
        elif match := _NAMED.fullmatch(level):
            pattern += f"{slash}(?P<{match[1]}>[^/]*)"
        else:
            pattern += slash + ("[^/]*" if level == "+" else re.escape(level))
    return re.compile(pattern, re.DOTALL)
