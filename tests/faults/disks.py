"""Disks that a test can fill, break and cut the power of. They need root, and loop devices for images."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def command(*words: str | Path) -> str:
    """Run a system command; what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def missing(*tools: str) -> str:
    """Why this machine cannot mount the disks that a test needs; empty when it can."""
    if os.geteuid() != 0:
        return "NOT RUN: mounting a disk of its own needs root"
    absent = [tool for tool in ("mount", "umount", *tools) if shutil.which(tool) is None]
    if absent:
        return f"NOT RUN: {', '.join(absent)} missing"
    if "losetup" in tools and not _has_loop_device():
        return "NOT RUN: no loop device can be had here"
    return ""


def _has_loop_device() -> bool:
    return subprocess.run(["losetup", "-f"], capture_output=True, check=False).returncode == 0


@contextmanager
def memory_disk(place: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of this size in memory at a directory; `resize` gives it more room."""
    place.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place)
    try:
        yield
    finally:
        command("umount", "-l", place)


def resize(place: Path, megabytes: int) -> None:
    """Change the size of a disk in memory while it is used."""
    command("mount", "-o", f"remount,size={megabytes}m", place)


def fill(place: Path) -> Path:
    """Take the last byte of a disk; the file that holds it all."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for piece_bytes in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * piece_bytes)
    return ballast


def format_image(image: Path, megabytes: int) -> None:
    """Make an image with an ext4 on it, none of it set aside for root."""
    command("truncate", "-s", f"{megabytes}M", image)
    command("mkfs.ext4", "-q", "-F", "-m", "0", image)


@contextmanager
def attached(image: Path, place: Path) -> Iterator[None]:
    """Mount an image through a loop device of its own, which is given back."""
    place.mkdir()
    device = command("losetup", "-f", "--show", image)
    try:
        command("mount", device, place)
        try:
            yield
        finally:
            command("umount", place)
    finally:
        command("losetup", "-d", device)


def break_off(place: Path) -> None:
    """Turn a mounted ext4 read-only at once, as the kernel does after an I/O error."""
    command("mount", "-o", "remount,abort", place)
