"""TLS of a client's connection: whom it trusts, and how it shows who it is. The server is always verified."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from resources.errors import ConfigurationError

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Tls:
    """``ca`` None means the certificate authorities of the system; ``certificate`` and ``key`` are the client's."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    minimum_version: Literal["1.2", "1.3"] = "1.2"

    def context(self) -> ssl.SSLContext:
        """Reads the files.

        Raises:
            ConfigurationError: a file is not there or is not what it should be.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ConfigurationError(f"ca: cannot read {self.ca} as PEM certificates: {_reason(error)}") from error
        context.minimum_version = _VERSIONS[self.minimum_version]
        if self.certificate:
            try:
                # Without a password OpenSSL would ask for it at the terminal.
                context.load_cert_chain(self.certificate, self.key, lambda: self.key_password or "")
            except OSError as error:
                place = f"{self.certificate} with key {self.key or 'in the same file'}"
                raise ConfigurationError(f"certificate: cannot use {place}: {_reason(error)}") from error
        return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)
