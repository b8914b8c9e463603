"""towpath push devices export, read by a spreadsheet that runs what looks like a formula."""

from __future__ import annotations

import csv
import json as jsonlib
from pathlib import Path

import pytest

from .support import Server, Shell
from .test_push_attacked import server

__all__ = ["server"]

ODD = ["=cmd|' /C calc'!A0", "+43664123", "-1+1", "@SUM(A1)", "'=1", "''=1", "'plain", "a=b", "\uff1d1+1"]


@pytest.mark.spec("P047", "D08")
def test_a_csv_export_runs_nothing_and_reads_back_exactly(
    server: Server, shell: Shell, tmp_path: Path
) -> None:
    told, file = tmp_path / "in.jsonl", tmp_path / "out.csv"
    told.write_text(
        "".join(
            jsonlib.dumps(
                {
                    "deviceId": f"{odd}{at}",
                    "fcmToken": f"{odd}t{at}",
                    "userId": odd,
                    "deviceType": "iOS",
                    "app": odd,
                }
            )
            + "\n"
            for at, odd in enumerate(ODD)
        )
    )
    assert shell("push", "devices", "import", str(told), "--json").json()["taken"] == len(ODD)
    before = shell("push", "devices", "list", "--json").json()
    shell("push", "devices", "export", "-o", str(file))
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    assert len(rows) == len(ODD) + 1
    assert not [cell for row in rows for cell in row if cell[:1] in set("=+-@\t\r\n\uff1d")]
    assert shell("push", "devices", "import", str(file), "--json").json() == {
        "taken": len(ODD),
        "refused": [],
    }
    assert shell("push", "devices", "list", "--json").json() == before
