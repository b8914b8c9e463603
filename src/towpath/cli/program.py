"""Commands that run or describe the program: run, dev, init, validate, reload, schema, version."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from . import logs
from .client import Client, load_config
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption
from .output import say, show_json


def run(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Run the server: take events in, keep them, deliver them.

    SIGTERM and Ctrl-C stop it within 10 seconds, SIGHUP applies the configuration again.
    """
    _refuse_second(config)
    from ..serve import Serving, serve

    loaded = load_config(config)
    logs.begin(log_pii=loaded.privacy.log_pii)

    def ready(serving: Serving) -> None:
        _announce(serving, as_json=json)

    start(serve(loaded, lambda: load_config(config), ready))


def _refuse_second(config: Path) -> None:
    """Say at once, before everything is loaded, that another process owns the data."""
    from ..config.locate import locate
    from ..log.lock import DirectoryLock

    storage = locate(config).storage
    with contextlib.suppress(OSError):
        DirectoryLock(storage).release()


def _announce(serving: Any, *, as_json: bool) -> None:
    config = serving.app.config
    if as_json:
        addresses = {"events": serving.address, "admin": str(config.socket)}
        show_json({"ready": True, "version": __version__, **addresses, "durability": config.durability})
        return
    strict = config.durability == "strict"
    promise = "a 200 means on disk" if strict else "RELAXED: a power cut may lose the last events"
    say(f"towpath {__version__}   data {config.storage}   {promise}")
    say(f"  events  {'https' if config.server.tls else 'http'}://{serving.address}")
    say(f"  admin   {config.socket}")
    sys.stdout.flush()


def dev(
    demo: Annotated[
        bool, typer.Option("--demo", help="Run the whole journey once and end with its balance.")
    ] = False,
    listen: Annotated[str, typer.Option(help="Where events come in.")] = "127.0.0.1:8080",
    data: Annotated[Path, typer.Option(help="The sandbox's data directory.")] = Path(".towpath"),
    json: JsonOption = False,
) -> None:
    """Run server, simulated vendors and sample traffic; no account is needed.

    Example:  towpath dev --demo
    """
    logs.begin(logging.ERROR)
    if demo:
        from .demo import run_demo

        raise typer.Exit(start(run_demo(data / "demo", as_json=json)))
    from .sandbox import run_dev

    start(run_dev(data / "dev", listen, as_json=json))


def start(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def init(
    directory: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
    template: Annotated[str, typer.Option(help="Which start: kustomer or webhook.")] = "kustomer",
    json: JsonOption = False,
) -> None:
    """Write a commented towpath.yaml to begin with.

    Example:  towpath init hub --template webhook
    """
    from ..scaffold import init as write

    made = [str(file) for file in write(directory, template)]
    if json:
        show_json(made)
        return
    for file in made:
        say(f"wrote {file}")


def validate(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check a configuration: every error at once, with line and fix."""
    loaded = load_config(config)
    summary = {
        "file": str(config),
        "sources": sorted(loaded.sources),
        "destinations": sorted(loaded.destinations),
        "connections": [entry.name for entry in loaded.connections],
    }
    if json:
        show_json({"valid": True, **summary})
        return
    say(f"{config} is valid")
    for name in ("sources", "destinations", "connections"):
        say(f"  {name.ljust(12)}  {', '.join(summary[name]) or 'none'}")


def reload(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Apply the configuration file to the running server; an invalid one changes nothing."""
    done = Client(config).post("/reload", running=True)
    if json:
        show_json(done)
        return
    say(f"{config} is in force")
    for name, what in (("started", "started anew"), ("ended", "ended"), ("needs_restart", "needs a restart")):
        if done[name]:
            say(f"  {what}: {', '.join(done[name])}")
    for name, sources in done["leaving"].items():
        say(f"  {name} still delivers what was accepted of {', '.join(sources)}")
    for name, count in done["waiting"].items():
        say(f"  {name} is gone and {count:,} deliveries wait there: put it back, or  connections drop {name}")


def schema(json: JsonOption = False) -> None:
    """Print the JSON Schema of towpath.yaml, for editors."""
    from ..config import schema as whole

    _ = json  # it is JSON either way
    show_json(whole())


def version(json: JsonOption = False) -> None:
    """Print the version."""
    if json:
        show_json({"version": __version__, "python": sys.version.split()[0]})
        return
    say(f"towpath {__version__}")
