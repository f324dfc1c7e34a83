"""``[[decode]]``: what the payloads of topics are that no table of their own reads."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.settings.fields import Model
from resources.topics import check_filter


def _filter(value: str) -> str:
    if value.startswith("$share/"):
        raise ValueError("must be a plain topic filter; '$share' is for subscriptions")
    return check_filter(value)


class DecodeConfig(Model):
    """``[[decode]]``: the format of the payloads on some topics; the first entry that matches a topic decides."""

    topics: Annotated[list[Annotated[str, AfterValidator(_filter)]], Field(min_length=1)]
    format: Literal["json", "python-dict", "msgpack", "csv", "number"]
    time: Annotated[str, Field(min_length=1)] | None = None
    columns: list[Annotated[str, Field(min_length=1)]] = []
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","

    @model_validator(mode="after")
    def _fits_format(self) -> "DecodeConfig":
        if self.columns and self.format != "csv":
            raise ValueError(f"columns are for format = 'csv', not for {self.format!r}")
        if self.time and self.format == "number":
            raise ValueError("time names a field, and a number has none: its time is that of its arrival")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("names two columns alike")
        if self.time and self.columns and self.time not in self.columns:
            raise ValueError(f"time must be one of the columns {self.columns}, got {self.time!r}")
        return self
