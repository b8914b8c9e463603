"""`towpath …` with a job more that never ends: `python -m tests.cli.endless jobs run endless`."""

from __future__ import annotations

from typing import Any

from towpath import cli
from towpath.app import App
from towpath.config import Config
from towpath.jobs import Job, NoSettings, Run


class Endless(Job[NoSettings]):
    """Saves its place again and again."""

    kind = "endless"

    async def run(self, run: Run[NoSettings]) -> None:
        step = run.checkpoint or 0
        run.log(f"begins at {step}")
        while True:
            step += 1
            await run.save(step, done=step)
            await run.clock.sleep(0.01)


class WithEndless(App):
    """The program with that job."""

    async def _register_jobs(self, config: Config) -> None:
        await super()._register_jobs(config)
        await self.jobs.register(Endless())


def main() -> None:
    """Run one command."""
    import towpath.app

    program: Any = towpath.app
    program.App = WithEndless
    cli.main()


if __name__ == "__main__":
    main()
