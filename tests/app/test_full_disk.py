"""A full disk below state.db is said as one on every admin route, and is no fault of the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from structlog.testing import capture_logs

from towpath.errors import TowpathError
from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.serve import serve

from .support import ask, hub
from .test_push_attacked import YAML


@pytest.mark.spec("E036")
async def test_a_full_disk_is_said_as_one(tmp_path: Path) -> None:
    fcm = FcmSimulator()
    async with serve(fcm) as url:
        (tmp_path / "key.json").write_text(fcm.account(url))
        file = tmp_path / "towpath.yaml"
        file.write_text(YAML.format(fcm=url))
        rows = [
            {"deviceId": f"d{at}", "fcmToken": "ok-" + "t" * 200 + str(at), "deviceType": "iOS"}
            for at in range(500)
        ]
        async with hub(file) as serving:
            engine = serving.app.state.engine

            def fill(connection: Any, *_: Any) -> None:
                connection.execute("PRAGMA max_page_count=1").close()  # as large as it is, and no larger

            event.listen(engine, "checkout", fill)
            with capture_logs() as logs, pytest.raises(TowpathError) as caught:
                await ask(file, "POST", "/push/import", {"devices": rows})
            event.remove(engine, "checkout", fill)
            assert (caught.value.code, caught.value.title) == (
                "E5018",
                "the disk is full: this could not be written",
            )
            told = [one for one in logs if one["event"].startswith("an admin request")]
            assert [(one["log_level"], "exc_info" in one) for one in told] == [("warning", False)]
