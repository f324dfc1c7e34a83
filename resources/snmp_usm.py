"""SNMPv3 messages with the User-based Security Model (RFC 3412 section 6, RFC 3414; RFC 3826 AES, RFC 7860 SHA-2).

Passwords become keys with pysnmp, once a user and engine. Each message is signed with ``hmac`` and encrypted with
``cryptography``, because that is what every poll does.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from pyasn1.type.univ import OctetString
from pysnmp.proto.secmod.rfc3414 import localkey

from resources.snmp_ber import SEQUENCE, element, integer, octets, read_element, read_integer, read_octets, read_tagged

AuthProtocol = Literal["MD5", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"]
PrivProtocol = Literal["DES", "AES-128", "AES-192", "AES-256", "AES-192-C", "AES-256-C"]

MAX_SIZE = 65_507
"""Octets of a message that we take: what one UDP datagram holds (RFC 3417 section 3.2)."""

_AUTH, _PRIV, _REPORTABLE = 0x01, 0x02, 0x04
_USM = 3
_VERSION = 3
_AUTH_PROTOCOLS: dict[AuthProtocol, tuple[str, int]] = {
    "MD5": ("md5", 12),
    "SHA": ("sha1", 12),
    "SHA-224": ("sha224", 16),
    "SHA-256": ("sha256", 24),
    "SHA-384": ("sha384", 32),
    "SHA-512": ("sha512", 48),
}
# Octets of the key. AES-192 and AES-256 extend a short one as draft-blumenthal-aes-usm-04 section 3.1.2.1 does; the
# -C (Cisco and others) as draft-reeder-snmpv3-usm-3desede-00 section 2.1 does.
_KEY_OCTETS: dict[PrivProtocol, int] = {
    "DES": 16,
    "AES-128": 16,
    "AES-192": 24,
    "AES-256": 32,
    "AES-192-C": 24,
    "AES-256-C": 32,
}


class UsmError(ValueError):
    """A message that the security model refuses; ``reason`` is the name of the counter it belongs to (RFC 3414)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class UsmUser:
    """A user and its passwords; messages are signed where there is an ``auth_protocol``, encrypted likewise."""

    name: str
    auth_protocol: AuthProtocol | None = None
    auth_password: str = field(default="", repr=False)
    priv_protocol: PrivProtocol | None = None
    priv_password: str = field(default="", repr=False)

    @property
    def flags(self) -> int:
        """The security level as bits of msgFlags."""
        return (_AUTH if self.auth_protocol else 0) | (_PRIV if self.priv_protocol else 0)


class UsmKeys(NamedTuple):
    """The keys of a user at one engine."""

    user: UsmUser
    engine_id: bytes
    auth: bytes
    priv: bytes


class V3Message(NamedTuple):
    """A v3 message, its security parameters read and not yet verified.

    ``signature_at`` and ``payload_at`` are places in ``datagram``; the payload is a scoped PDU, encrypted if the flags
    say so.
    """

    datagram: bytes
    message_id: int
    flags: int
    engine_id: bytes
    boots: int
    time: int
    user: bytes
    signature_at: tuple[int, int]
    salt: bytes
    payload_at: tuple[int, int]

    @property
    def is_signed(self) -> bool:
        """Whether it claims a signature."""
        return bool(self.flags & _AUTH)

    @property
    def is_encrypted(self) -> bool:
        """Whether the scoped PDU is encrypted."""
        return bool(self.flags & _PRIV)


class ScopedPdu(NamedTuple):
    """A scoped PDU (RFC 3412 section 6.8): the PDU starts at ``at`` of ``data`` and ends at ``end``."""

    context_engine_id: bytes
    context: bytes
    data: bytes
    at: int
    end: int


@lru_cache(1024)
def _master_key(password: str, algorithm: str) -> bytes:
    """RFC 3414 section A.2: a megabyte of the password, hashed."""
    return bytes(localkey.hash_passphrase(password.encode(), _new_hash(algorithm)))


def _new_hash(algorithm: str) -> Callable[..., Any]:
    def make(data: bytes = b"") -> Any:
        return hashlib.new(algorithm, data, usedforsecurity=True)

    return make


def _localized(master: bytes, engine_id: bytes, algorithm: str) -> bytes:
    return bytes(localkey.localize_key(master, OctetString(engine_id), _new_hash(algorithm)))


@lru_cache(65_536)
def localize(user: UsmUser, engine_id: bytes) -> UsmKeys:
    """Returns the keys of a user at the engine ``engine_id``."""
    if not user.auth_protocol:
        return UsmKeys(user, engine_id, b"", b"")
    algorithm, _ = _AUTH_PROTOCOLS[user.auth_protocol]
    auth = _localized(_master_key(user.auth_password, algorithm), engine_id, algorithm)
    if not user.priv_protocol:
        return UsmKeys(user, engine_id, auth, b"")
    priv, size = (
        _localized(_master_key(user.priv_password, algorithm), engine_id, algorithm),
        _KEY_OCTETS[user.priv_protocol],
    )
    while len(priv) < size:
        if user.priv_protocol.endswith("-C"):
            master = bytes(localkey.hash_passphrase(priv, _new_hash(algorithm)))
            priv += _localized(master, engine_id, algorithm)
        else:
            priv += hashlib.new(algorithm, priv).digest()
    return UsmKeys(user, engine_id, auth, priv[:size])


def parse_message(datagram: bytes) -> V3Message:
    """Reads the header and the security parameters of a v3 message.

    Raises:
        ValueError: if it is none, or of another security model.
    """
    at, end = read_tagged(datagram, 0, len(datagram), SEQUENCE)
    version, at = read_integer(datagram, at, end)
    if version != _VERSION:
        raise ValueError(f"the message has version {version}, asked was in version {_VERSION}")
    header, at = read_tagged(datagram, at, end, SEQUENCE)
    message_id, header = read_integer(datagram, header, at)
    _, header = read_integer(datagram, header, at)
    flags, header = read_octets(datagram, header, at)
    model, _ = read_integer(datagram, header, at)
    if model != _USM or len(flags) != 1:
        raise ValueError(f"security model {model} with {len(flags)} octets of flags; accepted is USM (3) with one")
    begin, payload = read_element(datagram, at, end)[1:]
    begin, stop = read_tagged(datagram, begin, payload, SEQUENCE)
    engine_id, begin = read_octets(datagram, begin, stop)
    boots, begin = read_integer(datagram, begin, stop)
    time, begin = read_integer(datagram, begin, stop)
    user, begin = read_octets(datagram, begin, stop)
    signature = read_tagged(datagram, begin, stop, 0x04)
    salt, _ = read_octets(datagram, signature[1], stop)
    return V3Message(datagram, message_id, flags[0], engine_id, boots, time, user, signature, salt, (payload, end))


def open_message(message: V3Message, keys: UsmKeys) -> ScopedPdu:
    """Verifies the signature of a message, decrypts it and returns its scoped PDU.

    What is not signed or not encrypted is taken as it is: whether that is enough is the caller's question.

    Raises:
        UsmError: the signature is wrong (``wrongDigests``), it cannot be decrypted (``decryptionErrors``), or it claims
            a protection that the user has no keys for (``unsupportedSecLevels``).
        ValueError: there is no scoped PDU in it.
    """
    if message.flags & (_AUTH | _PRIV) & ~keys.user.flags or (message.is_encrypted and not message.is_signed):
        raise UsmError("unsupportedSecLevels", f"the message has the flags {message.flags:#x}, the user has no keys")
    if message.is_signed:
        _verify(message, keys)
    at, end = message.payload_at
    data = message.datagram
    if message.is_encrypted:
        encrypted, _ = read_octets(data, at, end)
        data = _decrypted(message, keys, encrypted)
        at, end = 0, len(data)
    try:
        at, end = read_tagged(data, at, end, SEQUENCE)
        context_engine_id, at = read_octets(data, at, end)
        context, at = read_octets(data, at, end)
    except ValueError as error:
        if message.is_encrypted:
            raise UsmError("decryptionErrors", f"the message cannot be decrypted: {error}") from error
        raise
    return ScopedPdu(context_engine_id, context, data, at, end)


def _verify(message: V3Message, keys: UsmKeys) -> None:
    begin, end = message.signature_at
    data = message.datagram
    assert keys.user.auth_protocol
    algorithm, size = _AUTH_PROTOCOLS[keys.user.auth_protocol]
    blank = data[:begin] + bytes(end - begin) + data[end:]
    wanted = hmac.digest(keys.auth, blank, algorithm)[:size]
    if not hmac.compare_digest(wanted, data[begin:end]):
        raise UsmError("wrongDigests", f"the signature of the message is wrong for user {keys.user.name!r}")


def seal_message(
    keys: UsmKeys, message_id: int, boots: int, time: int, scoped: bytes, *, is_reportable: bool = True
) -> bytes:
    """Returns the message that carries the scoped PDU ``scoped``, encrypted and signed as the user's level demands."""
    user, salt = keys.user, b""
    if user.priv_protocol:
        scoped, salt = _encrypted(keys, boots, time, scoped)
        scoped = octets(scoped)
    size = _AUTH_PROTOCOLS[user.auth_protocol][1] if user.auth_protocol else 0
    flags = user.flags | (_REPORTABLE if is_reportable else 0)
    header = element(SEQUENCE, integer(message_id), integer(MAX_SIZE), octets(bytes((flags,))), integer(_USM))
    ends = octets(salt)
    parameters = element(
        SEQUENCE,
        octets(keys.engine_id),
        integer(boots),
        integer(time),
        octets(user.name.encode()),
        octets(bytes(size)),
        ends,
    )
    message = element(SEQUENCE, integer(_VERSION), header, octets(parameters), scoped)
    if not user.auth_protocol:
        return message
    # The signature's place is counted from the end, where nothing but the salt and the payload follow it.
    end = len(message) - len(scoped) - len(ends)
    signature = hmac.digest(keys.auth, message, _AUTH_PROTOCOLS[user.auth_protocol][0])[:size]
    return message[: end - size] + signature + message[end:]


def scope(engine_id: bytes, context: str, pdu: bytes) -> bytes:
    """The scoped PDU of a PDU."""
    return element(SEQUENCE, octets(engine_id), octets(context.encode()), pdu)


def _encrypted(keys: UsmKeys, boots: int, time: int, data: bytes) -> tuple[bytes, bytes]:
    """The data encrypted, and the salt. A random salt repeats no sooner than a counter that starts at random."""
    if keys.user.priv_protocol == "DES":
        salt = boots.to_bytes(4, "big") + secrets.token_bytes(4)
        encryptor = _cipher(keys, boots, time, salt).encryptor()
        return bytes(encryptor.update(data + bytes(-len(data) % 8))), salt
    salt = secrets.token_bytes(8)
    return bytes(_cipher(keys, boots, time, salt).encryptor().update(data)), salt


def _decrypted(message: V3Message, keys: UsmKeys, data: bytes) -> bytes:
    if len(message.salt) != 8 or (keys.user.priv_protocol == "DES" and len(data) % 8):
        raise UsmError("decryptionErrors", f"a salt of {len(message.salt)} octets before {len(data)} octets")
    return bytes(_cipher(keys, message.boots, message.time, message.salt).decryptor().update(data))


def _cipher(keys: UsmKeys, boots: int, time: int, salt: bytes) -> Cipher[Any]:
    """RFC 3414 section 8.1.1 (DES), RFC 3826 section 3.1.2.1 (AES)."""
    if keys.user.priv_protocol == "DES":
        vector = bytes(a ^ b for a, b in zip(keys.priv[8:16], salt, strict=True))
        return Cipher(TripleDES(keys.priv[:8] * 3), CBC(vector))
    start = (boots & 0xFFFFFFFF).to_bytes(4, "big") + (time & 0xFFFFFFFF).to_bytes(4, "big")
    return Cipher(AES(keys.priv), CFB(start + salt))
