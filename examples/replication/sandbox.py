"""Serve a simulated Customer.io workspace, filled with people and messages, until Ctrl-C."""  # noqa: INP001 - a script

from __future__ import annotations

import asyncio

from towpath.sandbox.customerio import CustomerIoSimulator
from towpath.sandbox.customerio_seed import populate
from towpath.sandbox.serve import serve

PORT = 8444


async def main() -> None:
    """Fill the workspace, serve it, and wait."""
    simulator = CustomerIoSimulator()
    populate(simulator)
    async with serve(simulator, port=PORT) as url:
        print(f"a Customer.io workspace at {url}, App API key: sandbox-app-key")
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print()
