"""The errors people see: what, where, why, how to fix it, and what became of the data."""

from __future__ import annotations


class TowpathError(Exception):
    """An error with a fix, for people.

    `code` is stable (`E####`), `fix` is one thing to do, `data` says what became of the data.
    """

    def __init__(
        self, title: str, *, code: str = "E1000", why: str = "", fix: str = "", data: str = ""
    ) -> None:
        super().__init__(title)
        self.title = title
        self.code = code
        self.why = why
        self.fix = fix
        self.data = data

    def lines(self) -> list[str]:
        """The error as the lines a terminal shows."""
        parts = [("Why: ", self.why), ("Fix: ", self.fix), ("Your data: ", self.data)]
        return [f"error {self.code}: {self.title}", *[f"   {label}{text}" for label, text in parts if text]]


class Unauthorized(TowpathError):
    """The caller is not allowed: a wrong write key, signature or token."""
