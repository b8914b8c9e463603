"""The admin API on the Unix socket (D16): thin routes over the App, JSON in and out."""

from __future__ import annotations

import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from . import __version__, views
from .app import App
from .config import ConfigError
from .errors import TowpathError
from .inspection import held, snapshot
from .log import DeadFilter
from .registry import destinations as destination_kinds

Answer: TypeAlias = Callable[[Request], Awaitable[Any]]
LIMIT_MAX = 10_000


class Missing(TowpathError):
    """Nothing has this name or id."""


def admin(app: App, token: str | None = None) -> Starlette:
    """The admin application. With a `token`, every request must carry it as a bearer."""
    api = _Api(app)
    routes = [
        ("GET", "/status", api.status),
        ("POST", "/reload", api.reload),
        ("GET", "/events", api.events),
        ("GET", "/events/{name:path}", api.event),
        ("GET", "/refusals", api.refusals),
        ("GET", "/deliveries", api.deliveries),
        ("GET", "/deliveries/{position:int}", api.delivery),
        ("POST", "/deliveries/retry", api.retry),
        ("GET", "/dlq", api.dead_letters),
        ("GET", "/dlq/{id:int}", api.dead_letter),
        ("POST", "/dlq/replay", api.replay),
        ("POST", "/dlq/drop", api.drop),
        ("GET", "/destinations", api.destinations),
        ("POST", "/destinations/{name}/test", api.test),
        ("POST", "/destinations/{name}/pause", api.pause),
        ("POST", "/destinations/{name}/resume", api.resume),
        ("GET", "/people/{id:path}", api.person),
        ("POST", "/people/erase", api.erase),
        ("POST", "/people/suppress", api.suppress),
        ("POST", "/people/unsuppress", api.unsuppress),
        ("GET", "/secrets", api.secrets),
        ("PUT", "/secrets/{name}", api.set_secret),
        ("DELETE", "/secrets/{name}", api.delete_secret),
        ("GET", "/balance", api.balance),
    ]
    made = [Route(path, _answering(answer, token), methods=[method]) for method, path, answer in routes]
    return Starlette(routes=[*made, Route("/listen", _guarded(api.listen, token))])


def _answering(answer: Answer, token: str | None) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            return _json(await answer(request))
        except Missing as error:
            return _json(_problem(error), 404)
        except ConfigError as error:
            return _json({**_problem(error), "text": error.render()}, 422)
        except TowpathError as error:
            return _json(_problem(error), 400)

    return _guarded(respond, token)


def _guarded(
    respond: Callable[[Request], Awaitable[Response]], token: str | None
) -> Callable[[Request], Awaitable[Response]]:
    async def check(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return _json(
                {"code": "E5010", "title": "a token is needed", "fix": "send Authorization: Bearer …"}, 401
            )
        return await respond(request)

    return check


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _problem(error: TowpathError) -> dict[str, str]:
    return {"code": error.code, "title": error.title, "why": error.why, "fix": error.fix, "data": error.data}


async def _body(request: Request) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(await request.body() or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TowpathError(f"the request body is not JSON: {error}", code="E5011") from error
    if not isinstance(value, dict):
        raise TowpathError("the request body must be a JSON object", code="E5011")
    return value


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal():
        raise TowpathError(f"{name} must be a whole number, not {text!r}", code="E5012")
    return min(int(text), LIMIT_MAX)


def _ids(body: dict[str, Any]) -> frozenset[str]:
    ids = body.get("ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) and one for one in ids):
        raise TowpathError("name at least one id, exactly as it was sent", code="E5013")
    return frozenset(ids)


def _filter(fields: dict[str, Any]) -> DeadFilter:
    try:
        return msgspec.convert({key: value for key, value in fields.items() if value is not None}, DeadFilter)
    except msgspec.ValidationError as error:
        raise TowpathError(f"a dead-letter filter cannot be read: {error}", code="E5014") from error


class _Api:
    """The routes' answers; each returns what becomes the JSON body."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def status(self, _: Request) -> Any:
        app = self._app
        return {
            "version": __version__,
            "pid": os.getpid(),
            "config": str(app.config.file),
            "sources": await app.store.counts(),
            "connections": {name: snapshot(running.loop) for name, running in app.connections.items()},
            "pauses": [views.pause(row) for row in await app.store.pauses()],
        }

    async def reload(self, _: Request) -> Any:
        await self._app.reload()
        return {"reloaded": True}

    # -- events and deliveries

    async def events(self, request: Request) -> Any:
        before = _number(request, "before", 0) if "before" in request.query_params else None
        rows = await self._app.store.latest(_number(request, "limit", 20), before)
        source = request.query_params.get("source")
        return [views.event(row) for row in rows if source in (None, row.source)]

    async def event(self, request: Request) -> Any:
        name = request.path_params["name"]
        records = await self._app.store.find(name)
        if not records and name.isdecimal():
            records = [
                found for found in await self._app.store.read(int(name) - 1, 1) if found.position == int(name)
            ]
        if not records:
            raise Missing(
                f"no kept event has the message id or position {name!r}",
                code="E4401",
                fix="towpath events list",
            )
        return [
            {**views.event(row, body=True), "deliveries": await self._trace(row.position)} for row in records
        ]

    async def _trace(self, position: int) -> list[dict[str, Any]]:
        store = self._app.store
        ended = [views.done(name, row) for name, row in await store.deliveries(None, position, 100)]
        rows = await store.waiting(None, LIMIT_MAX)
        parked = [views.waiting(name, row) for name, row in rows if row.position == position]
        known = {line["connection"] for line in [*ended, *parked]}
        memory = [
            line for running in self._app.connections.values() for line in held(running.loop, position)
        ]
        return [*ended, *parked, *(line for line in memory if line["connection"] not in known)]

    async def refusals(self, request: Request) -> Any:
        rows = await self._app.store.refusals(
            request.query_params.get("source"), _number(request, "limit", 20)
        )
        return [views.refused(row) for row in rows]

    async def deliveries(self, request: Request) -> Any:
        connection, limit = request.query_params.get("connection"), _number(request, "limit", 20)
        waiting = [views.waiting(name, row) for name, row in await self._app.store.waiting(connection, limit)]
        ended = [
            views.done(name, row) for name, row in await self._app.store.deliveries(connection, None, limit)
        ]
        return {"waiting": waiting, "ended": ended}

    async def delivery(self, request: Request) -> Any:
        return await self._trace(request.path_params["position"])

    async def retry(self, request: Request) -> Any:
        body = await _body(request)
        names = (
            [body["connection"]]
            if body.get("connection")
            else [row.name for row in self._app.config.connections]
        )
        hurried = {name: await self._app.store.hurry(name, self._app.clock.now()) for name in names}
        await self._refresh(names)
        return hurried

    async def _refresh(self, names: list[str]) -> None:
        for name in names:
            if (running := self._app.connections.get(name)) is not None:
                await running.loop.refresh()

    # -- dead letters

    async def dead_letters(self, request: Request) -> Any:
        fields: dict[str, Any] = dict(request.query_params)
        for name in ("code", "limit"):
            if name in fields:
                fields[name] = _number(request, name, 0)
        return [views.dead(letter) for letter in await self._app.store.dead(_filter(fields))]

    async def dead_letter(self, request: Request) -> Any:
        number = request.path_params["id"]
        found = await self._app.store.dead(DeadFilter(ids=[number]))
        if not found:
            raise Missing(f"there is no dead letter {number}", code="E4402", fix="towpath dlq list")
        return views.dead(found[0], body=True)

    async def replay(self, request: Request) -> Any:
        counts = await self._app.store.replay(_filter(await _body(request)), self._app.clock.now())
        await self._refresh(list(counts))
        return counts

    async def drop(self, request: Request) -> Any:
        return {"dropped": await self._app.store.drop(_filter(await _body(request)))}

    # -- destinations

    async def destinations(self, _: Request) -> Any:
        pauses = await self._app.store.pauses()
        lines = []
        for name, entry in self._app.config.destinations.items():
            connections = [row.name for row in self._app.config.connections if row.destination == name]
            mine = [views.pause(row) for row in pauses if row.connection in connections]
            lines.append(
                {
                    "name": name,
                    "type": entry.type,
                    "account": entry.account,
                    "connections": connections,
                    "pauses": mine,
                }
            )
        return lines

    def _named(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self._app.config.destinations:
            known = ", ".join(self._app.config.destinations) or "none"
            raise Missing(f"there is no destination {name!r}", code="E4403", fix=f"known: {known}")
        return name

    async def test(self, request: Request) -> Any:
        name = self._named(request)
        entry = self._app.config.destinations[name]
        destination = destination_kinds()[entry.type](entry.settings)
        checks = await destination.check(self._app.scope(entry, destination, f"test-{name}"))
        if all(check.ok for check in checks):
            for running in self._of(name):
                await running.loop.pauses.recheck()
        return [msgspec.to_builtins(check) for check in checks]

    def _of(self, destination: str) -> list[Any]:
        return [
            running for running in self._app.connections.values() if running.entry.destination == destination
        ]

    async def pause(self, request: Request) -> Any:
        name, reason = self._named(request), (await _body(request)).get("reason") or "paused by hand"
        for running in self._of(name):
            await running.loop.pauses.by_hand(str(reason))
        return {"paused": [running.entry.name for running in self._of(name)]}

    async def resume(self, request: Request) -> Any:
        name = self._named(request)
        for running in self._of(name):
            await running.loop.pauses.resume()
        return {"resumed": [running.entry.name for running in self._of(name)]}

    # -- people

    async def person(self, request: Request) -> Any:
        wanted = request.path_params["id"]
        store = self._app.store
        identity = self._app.identity
        last = store.last()
        people = {f"{kind}:{wanted}": await identity.resolve(f"{kind}:{wanted}", last) for kind in "ua"}
        letters = [row for name in people.values() for row in await store.dead(DeadFilter(person=name))]
        return {
            "id": wanted,
            "suppressed": wanted in await store.suppressed(),
            "person": people,
            "dead": [views.dead(letter) for letter in letters],
            "waiting": [
                views.waiting(name, row)
                for name, row in await store.waiting(None, LIMIT_MAX)
                if row.person in people.values()
            ],
        }

    async def erase(self, request: Request) -> Any:
        ids = _ids(await _body(request))
        erased = await self._app.erase(ids)
        return {"ids": sorted(ids), **erased, "destinations": self._elsewhere()}

    def _elsewhere(self) -> dict[str, str]:
        said = "not erased there: delete the person in that tool (deletes are not forwarded to it yet)"
        return dict.fromkeys(self._app.config.destinations, said)

    async def suppress(self, request: Request) -> Any:
        ids = _ids(await _body(request))
        await self._app.suppress(ids, on=True)
        return {"suppressed": sorted(ids)}

    async def unsuppress(self, request: Request) -> Any:
        ids = _ids(await _body(request))
        await self._app.suppress(ids, on=False)
        return {"unsuppressed": sorted(ids)}

    # -- secrets, balance, live

    async def secrets(self, _: Request) -> Any:
        names = self._app.secrets.names()
        return [{"name": row.name, "updated_at": views.moment(row.updated_at)} for row in names]

    async def set_secret(self, request: Request) -> Any:
        value = (await _body(request)).get("value")
        if not isinstance(value, str) or not value:
            raise TowpathError("a secret needs a value", code="E5015")
        self._app.secrets.set(request.path_params["name"], value)
        return await self._applied()

    async def delete_secret(self, request: Request) -> Any:
        self._app.secrets.delete(request.path_params["name"])
        return {"deleted": True}

    async def _applied(self) -> Any:
        """Let the running parts take a new secret up at once (P6, E031)."""
        if not self._app.delivering:
            return {"saved": True}
        await self._app.reload()
        for running in self._app.connections.values():
            await running.loop.pauses.recheck()
        return {"saved": True, "applied": True}

    async def balance(self, request: Request) -> Any:
        recount = request.query_params.get("recount") == "true"
        return [views.balance(row) for row in await self._app.store.balance(recount=recount)]

    async def listen(self, _: Request) -> Response:
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[bytes]:
        yield b'{"listening":true}\n'
        async for line in self._app.bus.listen():
            yield msgspec.json.encode(line) + b"\n"
