"""Where the admin socket is."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.config import load
from towpath.config.locate import locate
from towpath.config.places import default_socket, fits_a_socket, runtime_directory
from towpath.serve import serving

TEXT = "version: 1\nserver: {listen: '127.0.0.1:0'}\n"


@pytest.mark.spec("D16")
def test_a_deep_data_directory_gets_a_short_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    shallow, deep = Path("/srv/towpath"), Path("/srv/" + "deep/" * 30)
    assert default_socket(shallow) == shallow / "admin.sock"
    assert default_socket(deep).parent == Path("/run/user/7/towpath")
    assert default_socket(deep) != default_socket(deep / "other")
    assert fits_a_socket(default_socket(deep))


@pytest.mark.spec("D16")
async def test_a_server_in_a_deep_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    file = deep / "towpath.yaml"
    file.write_text(TEXT)
    async with serving(load(file)):
        socket = locate(file).socket
        assert socket.parent == runtime_directory()
        assert socket.stat().st_mode & 0o777 == 0o600
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not socket.exists()
