"""What may be wrong with a target: errors for people, and which of them pass by themselves."""

from __future__ import annotations

from towpath.errors import TowpathError

from .loading import Lost

LOCKED = "E5605"
OUT_OF_REACH = "E5606"
UNREADABLE = "E5607"
FULL = "E5608"
UNREACHABLE = "E5609"
TOO_LITTLE_MEMORY = "E5610"
ENDED = "E5611"
EXTRA_MISSING = "E5612"
UNFORESEEN = "E5613"
REFUSED = "E5614"
NOT_REWRITTEN = "E5615"
EXCHANGED = "E5624"
OTHER_KEY = "E5625"

NOTHING_LOST = (
    "nothing of this batch was written; what was confirmed before stands, and a new run goes on there"
)


class Hindered(TowpathError, Lost):
    """Something that may pass: the same can be tried again later as it is."""


def locked(path: str, why: str) -> Hindered:
    """Another process has the file open."""
    return Hindered(
        f"{path} is open in another program", code=LOCKED, why=why, data=NOTHING_LOST,
        fix="close it there, or open it read-only between runs: towpath lets go of it 5 seconds after a run",
    )  # fmt: skip


def out_of_reach(path: str, why: str) -> TowpathError:
    """The file cannot be opened or made."""
    return TowpathError(
        f"{path} cannot be opened", code=OUT_OF_REACH, why=why, data="nothing was written",
        fix="check the path, that its directory exists, and that the user towpath runs as may write there",
    )  # fmt: skip


def exchanged(path: str) -> Hindered:
    """The file that is open is not the one that is there."""
    return Hindered(
        f"{path} was removed, or another file was put in its place, while it was open", code=EXCHANGED,
        why="what is written to the old one would be nowhere",
        fix="nothing: the next try opens what is there; rows that were in the old file are read again where "
        "the source still has them",
        data="nothing was written",
    )  # fmt: skip


def unreadable(path: str, why: str) -> TowpathError:
    """The file is of a newer DuckDB, damaged, or something else."""
    return TowpathError(
        f"{path} is no DuckDB file that this version can read", code=UNREADABLE, why=why,
        fix="name another file, or open it with the version of DuckDB that wrote it and copy its tables",
        data="the file was left as it is",
    )  # fmt: skip


def full(path: str, why: str) -> Hindered:
    """There is no room left."""
    return Hindered(
        f"there is no room left to write {path}", code=FULL, why=why, data=NOTHING_LOST,
        fix="make room on that disk; what was not written is tried again",
    )  # fmt: skip


def unreachable(what: str, why: str) -> Hindered:
    """The database does not answer, or no longer."""
    return Hindered(
        f"{what} cannot be reached", code=UNREACHABLE, why=why, data=NOTHING_LOST,
        fix="check that the server runs, and the host, port, user and password of the account",
    )  # fmt: skip


def too_little_memory(what: str, why: str) -> Hindered:
    """The work needs more memory than it may take."""
    return Hindered(
        f"{what} needs more memory than it is given", code=TOO_LITTLE_MEMORY, why=why, data=NOTHING_LOST,
        fix="free disk space beside the file, where work in progress is put, and try again",
    )  # fmt: skip


def refused(what: str, why: str) -> TowpathError:
    """The database says no to a statement."""
    return TowpathError(
        f"{what} refused a statement", code=REFUSED, why=why, data=NOTHING_LOST,
        fix="check the rights of the user, and whether somebody changed a table by hand",
    )  # fmt: skip


def ended(why: str) -> Hindered:
    """The loading process ended without an answer."""
    return Hindered(
        "the loading process ended before it answered", code=ENDED, why=why, data=NOTHING_LOST,
        fix="try again; if it happens each time, look whether the machine is out of memory",
    )  # fmt: skip


def extra_missing(name: str, extra: str) -> TowpathError:
    """A package that this kind of target needs is not installed."""
    return TowpathError(
        f"this warehouse needs {name}, which is not installed",
        code=EXTRA_MISSING, data="nothing was written",
        fix=f"install it: pip install 'towpath[{extra}]'",
    )  # fmt: skip


def unforeseen(why: str) -> TowpathError:
    """A mistake of ours."""
    return TowpathError(
        "the loading process met something it does not know", code=UNFORESEEN, why=why, data=NOTHING_LOST,
        fix="report it with the lines of the log",
    )  # fmt: skip


def not_rewritten(path: str, why: str) -> Hindered:
    """The rows of a person are removed, but the file still holds their bytes."""
    return Hindered(
        f"{path} could not be written anew", code=NOT_REWRITTEN, why=why,
        fix="make room for a second copy of it on that disk, then erase again",
        data="the rows are removed, but bytes of them are still in unused parts of the file",
    )  # fmt: skip


def other_key() -> TowpathError:
    """The hashes that are there were made with another key."""
    return TowpathError(
        "the hash_key is another than the one that this warehouse's hashes were made with", code=OTHER_KEY,
        why="the same value would be hashed in two ways, and nobody could be found and erased any more",
        fix="give the account the hash_key of before, or a warehouse (or schema) of its own",
        data="nothing was written or removed",
    )  # fmt: skip
