"""How every route answers: JSON, the token at the door, and each error with its fix; never a traceback."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import structlog
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..config import ConfigError
from ..errors import TowpathError
from ..log import LogFailed, LogFull

Answer: TypeAlias = Callable[[Request], Awaitable[Any]]
Named: TypeAlias = tuple[str, str, Answer]
"""Method, path, and what answers with the JSON body."""
_Respond: TypeAlias = Callable[[Request], Awaitable[Response]]

UNKNOWN_PATH = "E5016"
UNFORESEEN = "E5017"

log = structlog.get_logger("towpath.api")


class Missing(TowpathError):
    """Nothing has this name or id."""


def application(
    routes: Sequence[Named], token: str | None = None, streams: Mapping[str, _Respond] | None = None
) -> Starlette:
    """An application of these routes; with a `token`, every request must carry it as a bearer."""
    made = [Route(path, _guarded(_answering(answer), token), methods=[way]) for way, path, answer in routes]
    made += [Route(path, _guarded(respond, token)) for path, respond in (streams or {}).items()]
    return Starlette(routes=made, exception_handlers={HTTPException: _other})


def _answering(answer: Answer) -> _Respond:
    async def respond(request: Request) -> Response:
        try:
            return _json(await answer(request))
        except Missing as error:
            return _json(problem(error), 404)
        except ConfigError as error:
            told = {**problem(error), "text": error.render(), "problems": error.json()}
            return _json(told, 422)
        except TowpathError as error:
            return _json(problem(error), 400)
        except LogFull:
            return _full(request)
        except LogFailed as error:
            return _json(problem(_disk_failed(error)), 503)
        except ClientDisconnect:  # nobody is left to be told, nor at a stop
            return Response(status_code=400)
        except OverflowError:
            title = "a number of the request is larger than any number here"
            return _json(problem(TowpathError(title, code="E5012", data="Nothing was changed.")), 400)
        except Exception as error:
            return _full(request) if _is_of_a_full_disk(error) else _failed(request, error)

    return respond


def _is_of_a_full_disk(error: Exception) -> bool:
    """Whether state.db could not be written for want of room (SQLITE_FULL has no class of its own)."""
    return isinstance(error, OperationalError) and "disk is full" in str(error.orig)


def _full(request: Request) -> Response:
    log.warning("an admin request met a full disk", path=request.scope["route"].path)
    return _json(problem(_disk_full()), 507)


def _failed(request: Request, error: Exception) -> Response:
    log.error("an admin request failed", path=request.scope["route"].path, error=repr(error), exc_info=error)
    return _json(problem(_unforeseen(error)), 500)


def _disk_full() -> TowpathError:
    return TowpathError(
        "the disk is full: this could not be written",
        code="E5018",
        fix="free some space, then do it again",
        data="Nothing was changed; what was accepted before is on disk, and deliveries go on.",
    )


def _disk_failed(error: LogFailed) -> TowpathError:
    return TowpathError(
        f"this could not be written: {error}",
        code="E5019",
        why="the file system does not take it: an I/O error, or it has turned read-only",
        fix="look at the disk and the system's log, mount it again, then do this again",
        data="Nothing was changed; what was accepted before is on disk.",
    )


def _unforeseen(error: Exception) -> TowpathError:
    return TowpathError(
        f"this failed inside towpath: {type(error).__name__}: {error}",
        code=UNFORESEEN,
        why="a mistake of towpath's, or of the disk below it; the server's log has the place",
        fix="look at  towpath status  and the server's log, and try again",
        data="What was accepted before is on disk.",
    )


def _guarded(respond: _Respond, token: str | None) -> _Respond:
    async def check(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            fix = "send  Authorization: Bearer TOKEN  with admin.token of the configuration"
            return _json(problem(TowpathError("a token is needed", code="E5010", fix=fix)), 401)
        return await respond(request)

    return check


async def _other(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    title = "this path takes another method" if status == 405 else "the admin API has no such path or number"
    return _json(problem(TowpathError(title, code=UNKNOWN_PATH, data="Nothing was changed.")), status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def problem(error: TowpathError) -> dict[str, str]:
    """Return an error as the API shows it."""
    return {"code": error.code, "title": error.title, "why": error.why, "fix": error.fix, "data": error.data}
