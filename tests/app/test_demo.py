"""The demo: killed at any moment and started again, it ends with the balance of one that was left alone."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .support import KILL, TOWPATH, run

MOMENTS = ("towpath on", "1  ", "2  ", "   Kustomer is back", "4  ", "5  ", "   linus signs in", "6  ")
"""A line of the demo; it is killed within the next half second."""
ACCEPTED = {"kustomer": 153, "hook": 153, "customerio": 177, "devices": 167}
PUSHED = {
    "browser-1": ("linus", "accepted", "active"),
    "old-phone": ("grace", "failed UNREGISTERED", "removed unregistered"),
    "phone-1": ("grace", "accepted", "active"),
    "phone-2": ("phone-2", "accepted", "active"),
    "tablet-1": ("linus", "accepted", "active"),
}
"""Device → owner, what became of its push, and of the device."""


def killed_after(line: str, wait_s: float, directory: Path) -> None:
    """Start the demo and kill it a moment after it printed this line."""
    with subprocess.Popen([*TOWPATH, "dev", "--demo"], cwd=directory, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        printed = any(text.decode().startswith(line) for text in demo.stdout)
        time.sleep(wait_s)
        demo.send_signal(KILL)
    assert printed, f"the demo ended before {line!r}"
    assert demo.returncode == -KILL


def balance(directory: Path) -> dict[str, Any]:
    """Run the demo to its end; what it says as JSON."""
    done = run("dev", "--demo", "--json", cwd=directory)
    assert (done.returncode, done.stderr) == (0, b"")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.spec("D05", "P2", "P005", "P006", "P012", "P025", "P055", "R041", "R044")
def test_killed_at_eight_moments_it_ends_with_the_same_balance(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "killed").mkdir()
    with subprocess.Popen(
        [*TOWPATH, "dev", "--demo", "--json"], cwd=tmp_path / "alone", stdout=subprocess.PIPE
    ) as alone:
        chance = random.Random(4)
        for line in MOMENTS:
            killed_after(line, chance.uniform(0.0, 0.5), tmp_path / "killed")
        after_kills = balance(tmp_path / "killed")
        undisturbed = json.loads(alone.communicate(timeout=60)[0])
    assert alone.returncode == 0
    assert after_kills == undisturbed
    assert undisturbed["inversions"] == 0
    assert undisturbed["replicated_again"] == 1
    for row in undisturbed["balance"]:
        assert (row["difference"], row["waiting"]) == (0, 0)
        assert row["accepted"] == ACCEPTED[row["connection"]]
    phones = {row["device"]: (row["owner"], row["push"], row["status"]) for row in undisturbed["phones"]}
    assert phones == PUSHED
