"""The benchmark of labelled industrial data: what it prints is what the documentation promises."""

import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.skab import main


def test_published_protocol_is_met(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.environ.get("SECCHI_TEST_DATA")
    if not folder or not (Path(folder) / "skab").is_dir():
        pytest.skip("SECCHI_TEST_DATA names no folder with skab/")
    monkeypatch.setattr(sys, "argv", ["skab", str(Path(folder) / "skab")])
    main()
    line = capsys.readouterr().out.splitlines()[-1]
    figures = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", line)}
    assert figures["f1"] >= 0.80
    assert figures["far"] <= 0.20
    assert figures["f1"] >= figures["residual_f1"]
    assert figures["plain_f1"] < 0.5
