"""From the file's text to a `Config`, or to every problem it has at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path as FilePath

from pydantic import SecretStr

from towpath.registry import destinations_beside

from . import errors
from .connections import connections
from .document import Document
from .entries import DestinationParts, Entries
from .errors import ConfigError
from .interpolate import Interpolation
from .model import File, RetryChange, Server
from .places import LONGEST_SOCKET, absolute, default_socket, fits_a_socket
from .push import PushParts
from .reading import text_of
from .replications import Replications
from .resolved import Config, DestinationEntry, RetryRule, SourceEntry, seconds
from .settings import Checker, Within

SecretSource = Callable[[FilePath], Mapping[str, str]]


def load(path: FilePath, env: Mapping[str, str] | None = None, secrets: SecretSource | None = None) -> Config:
    """Read and check a configuration file. Raises `ConfigError` with everything that is wrong with it.

    `env` gives the variables (default: the process's). `secrets` is asked for the secrets of a storage
    directory, only when the file names one.
    """
    return parse(text_of(path), path, os.environ if env is None else env, secrets)


def parse(text: str, path: FilePath, env: Mapping[str, str], secrets: SecretSource | None = None) -> Config:
    """The same for a text; `path` names it in errors, and relative paths start from its directory."""
    document = Document(text, str(path))
    directory = path.absolute().parent
    storage = _storage(document, directory, env)
    interpolation = Interpolation(
        document, directory, env, None if secrets is None else lambda: secrets(storage)
    )
    checker = Checker(document, interpolation)
    data = interpolation.fill(document.data, ())
    file = checker.validate(File, data, Within())
    entries = Entries(data, checker, destinations_beside(directory))
    parts = list(entries.destinations())
    found = {entry.name: entry for entry in entries.sources()}
    links = connections(data, checker, directory, file.delete_guard if file else None)
    push = PushParts(file.push if file else None, data, checker, destinations_beside(directory), found)
    accounts = entries.accounts()
    push.check_accounts(accounts)
    replications = Replications(file.replications if file else {}, checker, accounts).entries()
    server, socket = _server(file, checker, directory), _socket(file, checker, directory, storage)
    _check_names(data, checker)
    _check_keys(found, checker)
    problems = [*document.problems, *interpolation.problems, *checker.problems]
    if problems or file is None:
        raise ConfigError(problems)
    rule = _rule(file, RetryChange())
    return Config(
        file=path.absolute(),
        server=server,
        admin=file.admin,
        storage=storage,
        socket=socket,
        durability=file.durability,
        accounts=accounts,
        sources=found | push.sources(),
        destinations={part.name: _destination(part, file) for part in parts} | push.destinations(rule),
        connections=[*links, *push.connections()],
        retry=rule,
        retention=file.retention,
        privacy=file.privacy,
        jobs=file.jobs,
        identity=file.identity,
        push=file.push,
        replications=replications,
    )


def _storage(document: Document, directory: FilePath, env: Mapping[str, str]) -> FilePath:
    """Where the data is; read ahead of the rest, since the secrets are in there."""
    written = Interpolation(document, directory, env, None).fill(document.data.get("storage"), ("storage",))
    return absolute(directory, written if isinstance(written, str) else "data")


def _server(file: File | None, checker: Checker, directory: FilePath) -> Server:
    """The server's settings with the paths of its certificate made absolute."""
    if file is None or file.server.tls is None:
        return file.server if file is not None else Server()
    paths: dict[str, str] = {}
    for key in ("certificate", "key"):
        path = absolute(directory, getattr(file.server.tls, key))
        paths[key] = str(path)
        if not _is_file(path):
            hint = "name a PEM file; relative paths start from this file's directory"
            checker.add(errors.FILE, f"server.tls.{key} names no file", ("server", "tls", key), hint)
    return file.server.model_copy(update={"tls": file.server.tls.model_copy(update=paths)})


def _is_file(path: FilePath) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _socket(file: File | None, checker: Checker, directory: FilePath, storage: FilePath) -> FilePath:
    """The admin socket's path, short enough for the operating system."""
    written = None if file is None else file.admin.socket
    if written is None:
        return default_socket(storage)
    path = absolute(directory, written)
    if not fits_a_socket(path):
        title = f"the path of the admin socket is longer than {LONGEST_SOCKET} bytes"
        hint = "set admin.socket to a short path, like /run/towpath/admin.sock"
        checker.add(errors.VALUE, title, ("admin", "socket"), hint)
    return path


def _check_names(data: Mapping[str, object], checker: Checker) -> None:
    """What has the same name in two of these sections: commands address all of them by it."""
    for first, second in combinations(("sources", "destinations", "replications"), 2):
        mine, others = data.get(first), data.get(second)
        if not isinstance(mine, dict) or not isinstance(others, dict):
            continue
        for name in mine.keys() & others.keys():
            title = f'"{name}" is the name of a {first[:-1]} and of a {second[:-1]}'
            checker.add(errors.NAME, title, (second, name), "rename one of the two", at_key=True)


def _check_keys(sources: Mapping[str, SourceEntry], checker: Checker) -> None:
    """Two sources may not share a write key: it decides which source an event belongs to."""
    owners: dict[str, str] = {}
    for name, entry in sources.items():
        for key in getattr(entry.settings, "write_keys", ()):
            text = key.get_secret_value() if isinstance(key, SecretStr) else str(key)
            first = owners.setdefault(text, name)
            if first != name:
                title = f"sources {first} and {name} share a write key"
                place = ("sources", name, "write_keys")
                checker.add(errors.NAME, title, place, f"give {name} a write key of its own")


def _destination(part: DestinationParts, file: File) -> DestinationEntry:
    return DestinationEntry(part.name, part.kind, part.account, part.settings, _rule(file, part.retry))


def _rule(file: File, change: RetryChange) -> RetryRule:
    """The file's retry rule with what one destination changes."""
    return RetryRule(
        schedule_s=seconds(change.schedule or file.retry.schedule),
        timeout_s=(change.timeout or file.retry.timeout).total_seconds(),
    )
