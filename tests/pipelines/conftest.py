"""What commands that run inside the tests' process would leave behind."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root, table_log = logging.getLogger(), logging.getLogger("pipelines.micro_batch")
    handlers, level, table_level = root.handlers[:], root.level, table_log.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    table_log.setLevel(table_level)
