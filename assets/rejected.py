"""Why a record cannot be used."""


class RejectedError(Exception):
    """A record cannot be used; becomes a row of rejects within the function that raises it.

    Attributes:
        reason: snake_case code.
        message: what is wrong, with the field, the value and what is accepted.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message
