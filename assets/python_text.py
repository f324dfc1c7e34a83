"""Single-quoted Python dict text, as some senders write it instead of JSON. It is rewritten, never evaluated."""

import json
import re

_TOKEN = re.compile(
    r"""(?P<plain>[ \t\r\n]+|[{}\[\],:]|-?[0-9][0-9.eE+-]*)
      | (?P<text>'(?:[^'\\\x00-\x1f]|\\.)*'|"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<word>-?[A-Za-z]+)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([\\'\"abfnrtv])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)")
_ESCAPED = dict(zip("\\'\"abfnrtv", "\\'\"\a\b\f\n\r\t\v", strict=True))
_WORDS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "nan": "NaN",
    "inf": "Infinity",
    "-inf": "-Infinity",
}


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return _ESCAPED[match[1]]
    code = match[2] or match[3] or match[4]
    if code is None or int(code, 16) > 0x10FFFF:
        raise ValueError(f"unknown escape {match[0]!r}")
    return chr(int(code, 16))


def python_to_json(text: str) -> str | None:
    """The JSON text that says what the text of a Python dict says, or None where it is none.

    Takes dicts and lists of texts, numbers, True, False and None as ``repr`` writes them. One pass over tokens, so that
    neither size nor nesting of the text can hurt; whether tokens stand in a right order is for the JSON parser to say.
    """
    parts: list[str] = []
    at = 0
    while at < len(text):
        if not (match := _TOKEN.match(text, at)):
            return None
        at = match.end()
        if match["plain"]:
            parts.append(match[0])
        elif match["word"]:
            if match[0] not in _WORDS:
                return None
            parts.append(_WORDS[match[0]])
        else:
            try:
                parts.append(json.dumps(_ESCAPE.sub(_character, match[0][1:-1])))
            except ValueError:
                return None
    return "".join(parts)
