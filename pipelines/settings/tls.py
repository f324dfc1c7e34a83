"""``tls = {...}``: whom a client's connection trusts, and how it shows who it is."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from pipelines.settings.fields import Model, Secret
from resources.errors import ConfigurationError
from resources.tls import Tls


class TlsConfig(Model):
    """``tls``: without ``ca`` the authorities of the system are trusted. The server is always verified."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: Secret | None = None
    minimum_version: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _key_has_certificate(self) -> "TlsConfig":
        if self.certificate is None and (self.key or self.key_password):
            raise ValueError("has a key without a certificate")
        return self

    def reveal(self) -> Tls:
        """What a connection is made with.

        Raises:
            ConfigurationError: the password of the key is not there.
        """
        try:
            password = self.key_password.reveal() if self.key_password else None
        except ConfigurationError as error:
            raise ConfigurationError(f"key_password: {error}") from error
        return Tls(self.ca, self.certificate, self.key, password, self.minimum_version)
