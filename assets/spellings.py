"""Canonical names for what senders spell in many ways."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Spellings:
    """Canonical names by exact spelling, and by spelling without regard to case where that is unambiguous."""

    exact: Mapping[str, str]
    folded: Mapping[str, str]

    def canonical(self, text: str) -> str:
        """The canonical name; a spelling that is not listed becomes lower snake_case.

        A text without a letter or digit that is not listed stays as it is.
        """
        listed = self.exact.get(text) or self.folded.get(text.casefold())
        return listed or re.sub(r"[\W_]+", "_", text.casefold()).strip("_") or text


def _index(names: Mapping[str, list[str]]) -> Spellings:
    exact = {spelling: name for name, spellings in names.items() for spelling in (name, *spellings)}
    meanings = Counter(folded for folded, _ in {(spelling.casefold(), name) for spelling, name in exact.items()})
    folded = {s.casefold(): name for s, name in exact.items() if meanings[s.casefold()] == 1}
    return Spellings(exact, folded)


@cache
def load_spellings(kind: str) -> Spellings:
    """Reads one section of ``assets/silver/spellings.toml``: ``unit`` or ``device_type``."""
    document = tomllib.loads(files("assets.silver").joinpath("spellings.toml").read_text("utf-8"))
    return _index(document[kind])
