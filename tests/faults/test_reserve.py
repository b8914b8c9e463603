"""The room kept aside: there when there is plenty, given back when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.state.reserve import FILE, Reserve

SIZE = 8192


def with_free(reserve: Reserve, free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "_free_bytes", lambda: free_bytes)


@pytest.mark.spec("D05")
def test_it_is_kept_while_there_is_room_and_released_when_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path, SIZE)
    with_free(reserve, 4 * SIZE - 1, monkeypatch)
    reserve.keep()
    assert not (tmp_path / FILE).exists(), "what little room there is belongs to the databases"
    with_free(reserve, 4 * SIZE, monkeypatch)
    reserve.keep()
    assert (tmp_path / FILE).stat().st_size == SIZE
    reserve.release()
    assert (tmp_path / FILE).exists()
    with_free(reserve, SIZE - 1, monkeypatch)
    reserve.release()
    assert not (tmp_path / FILE).exists()
    reserve.release()


def test_a_disk_that_turns_out_full_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: SIZE // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    Reserve(tmp_path, SIZE).keep()
    assert not (tmp_path / FILE).exists()
