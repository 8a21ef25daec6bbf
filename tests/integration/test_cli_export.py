"""Explain and export by hand."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from tests.factories import number
from tests.integration.conftest import Type


@pytest.mark.usefixtures("campaign")
def test_explain_and_export(typed: Type, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(f'phone,name\n{number(1)},"=cmd()"\n{number(1)},Eve\nn/a,Bob\n')
    typed("campaign", "load", "1", "e.csv")
    code, out, _ = typed("explain", "1", number(1))
    assert (code, "read from e.csv, line 2" in out, "blocked by: campaign is DRAFT" in out) == (0, True, True)
    assert json.loads(typed("explain", "1", number(1), "--json")[1])["state"] == "READY"
    rows = list(csv.DictReader(io.StringIO(typed("export", "1")[1])))
    assert [(r["line"], r["state"], r["e164"], r["name"]) for r in rows] == [
        ("2", "READY", number(1), "'=cmd()"),
        ("3", "DUP", number(1), "Eve"),
        ("4", "INVALID", "", "Bob"),
    ]
    assert "3 destinations written" in typed("export", "1", "--format", "jsonl", "--out", "x.jsonl")[1]
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [x["variables"]["name"] for x in lines] == ["=cmd()", "Eve", "Bob"]
    assert "3 destinations written" in typed("export", "1", "--format", "parquet", "--out", "x.parquet")[1]
    assert (tmp_path / "x.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.usefixtures("campaign")
def test_an_export_that_fails_leaves_what_was_there(
    typed: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.csv").write_text("before")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, said = typed("export", "1", "--format", "parquet", "--out", "x.csv")
    assert (code, "pip install 'campaign-dispatcher[parquet]'" in said) == (2, True)
    assert [(p.name, p.read_text()) for p in tmp_path.glob("*x.csv*")] == [("x.csv", "before")]
