"""Payloads of factory sensors, made at random: most are right, the others wrong in every way that came to mind."""

import json
from random import Random

# fmt: off
_NASTY_NUMBERS = [
    "0", "-0", "0.0", "-0.0", "1", "-1", "01", "+1", "1.", ".5", "1e5", "1E+5", "1e-5", "1e99", "-1e-99", "1e400",
    "1e-400", "0e0", "5e-324", "1.7976931348623157e308", "NaN", "Infinity", "-Infinity", "12.50",
    "9007199254740993", "999999999999999", "9999999999999999", "123456789012345678", "9223372036854775807",
    "9223372036854775808", "-9223372036854775808", "18446744073709551616", "0.1e1", "1e1.5", "0x10", "1_0",
    "123456789012345.12345678901234567", "123456789012345.123456789012345678", "9223372036854775",
    "9223372036854776", "1729312551000", "1729312551000.0",
]
_NASTY_TEXTS = [
    '""', '"BAR"', '" Bar "', '":"', '"\\":"', '"a\\"b"', '"\\u0041"', '"\\ud800"', '"\\u00e9"', '"é\u2003"', '"\x00"',
    '"\t"', '"\\n"', '"\\q"', '"\u2028"', '"1"', '"1729312551000"', '" 12 "', '"-5"', '"0012"', '"1e3"', '"\u0661"',
    '"\U0001f642"', "'BAR'", '"unterminated', '"\x7f"', '"ts":1', '"999999999999999"', '"9999999999999999"', '"null"',
]
# fmt: on
_OTHERS = ["true", "false", "null", "{}", "[]", "[1]", '{"a":1}', "", "nul", "/**/1", "{", "}", "1}", '{"latitude":1}']
_STRANGE_NAMES = ["x", "TS", "\\u0074s", "unit ", "", "metadata", "ts", "location", "siteId", "measurement", 'a\\"b']


def _number(random: Random) -> str:
    kind = random.randrange(5)
    if kind == 0:
        return random.choice(_NASTY_NUMBERS)
    if kind == 1:
        return repr(random.uniform(-1, 1) * 10.0 ** random.randrange(-30, 30))
    if kind == 2:
        return str(random.randrange(-(2**70), 2**70) >> random.randrange(70))
    return f"{random.uniform(-1000, 1000):.{random.randrange(4)}f}"


def _text(random: Random) -> str:
    if random.randrange(4):
        return random.choice(['"BAR"', '"L/m"', '"Gas Oven"', '" Amp "', '"°C"', '"2024-02-14T05:42:00.000000"'])
    if random.randrange(2):
        return random.choice(_NASTY_TEXTS)
    letters = [chr(random.choice([random.randrange(32, 127), random.randrange(0x250), 0x2003, 0x1F642])) for _ in "abc"]
    return json.dumps("".join(letters), ensure_ascii=False)


def _integer(random: Random) -> str:
    return str(random.randrange(-(2**63), 2**63) >> random.randrange(64))


def _time(random: Random) -> str:
    digits = str(random.randrange(10 ** random.randrange(1, 17)))
    return random.choice([digits, digits, f'"{digits}"', f'"00{digits}"'])


def _object(random: Random, members: dict[str, str], strangeness: float) -> str:
    """A JSON object of members in any order; with a chance of ``strangeness`` each, things that may not be."""
    pairs = list(members.items())
    random.shuffle(pairs)
    if random.random() < strangeness:
        pairs.append((random.choice([*_STRANGE_NAMES, *members]), random.choice([_number, _text])(random)))
    if random.random() < strangeness:
        pairs.pop(random.randrange(len(pairs)))
    if pairs and random.random() < strangeness:
        odd = random.choice([*_NASTY_NUMBERS, *_NASTY_TEXTS, *_OTHERS])
        pairs[random.randrange(len(pairs))] = (random.choice([*members]), odd)
    space = random.choice(["", "", "", " ", "\n", "\t "])
    behind = random.choice(["", "", "", " "])
    comma = random.choice([",", ",,", ";", "\u00a0,"]) if random.random() < strangeness else ","
    last = random.choice([",", "}", "\x0b"]) if random.random() < strangeness else ""
    return "{" + space + f"{space}{comma}{space}".join(f'"{n}"{behind}:{space}{v}' for n, v in pairs) + last + "}"


def _reading(random: Random, strangeness: float) -> str:
    metadata = {name: _integer(random) for name in ("siteId", "deviceId", "sensorId")} | {"unit": _text(random)}
    for name in random.sample(["ts_human", "deviceType"], random.randrange(3)):
        metadata[name] = _text(random)
    if random.randrange(2):
        location = {name: _number(random) for name in random.sample(["latitude", "longitude"], random.randrange(1, 3))}
        metadata["location"] = _object(random, location, strangeness)
    document = {"ts": _time(random), "metadata": _object(random, metadata, strangeness), "measurement": _number(random)}
    return _object(random, document, strangeness)


def payloads(seed: int, count: int) -> list[bytes]:
    random = Random(seed)
    made = []
    for _ in range(count):
        payload = _reading(random, random.choice([0, 0, 0.05, 0.3])).encode("utf-8", "surrogatepass")
        if random.random() < 0.1:
            at = random.randrange(len(payload) + 1)
            payload = (
                payload[:at] + random.choice([random.randbytes(1), b"", b" ", b'"', b"\\", b"0"]) + payload[at + 1 :]
            )
        made.append(payload)
    return made
