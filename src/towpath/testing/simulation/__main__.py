"""Live one history by hand: `python -m towpath.testing.simulation SEED [STEP,STEP…]` prints its trace."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from . import Broken, plan, simulate


def main(seed: int, steps: list[int] | None) -> int:
    """Print what happens, step by step, and how it ends."""
    for number, (name, _) in enumerate(plan(seed).steps):
        if steps is None or number in steps:
            print(f"{number:4} {name}")
    with tempfile.TemporaryDirectory() as directory:
        try:
            history = simulate(seed, Path(directory), steps=steps, keep=True)
        except Broken as broken:
            print(*broken.lines, f"seed {seed} breaks {broken}", sep="\n")
            return 1
    print(*history.lines, f"{history.digest} {dict(history.seen)}", sep="\n")
    return 0


if __name__ == "__main__":
    chosen = [int(number) for number in sys.argv[2].split(",")] if len(sys.argv) > 2 else None
    sys.exit(main(int(sys.argv[1]), chosen))
