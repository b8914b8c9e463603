"""The whole way: Google's emulators, a towpath that is killed, and Customer.io's simulator at the end."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import firebase_admin  # type: ignore[import-untyped]
import pytest
from firebase_admin import auth
from google.cloud import firestore

from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.serve import serve

from ..app.conftest import key_file, own_log
from ..app.support import Hub, delivered, process, run, until
from ..sdks.npm import Unavailable
from . import emulators
from .emulators import PATIENCE_S, PROJECT

__all__ = ["key_file", "own_log"]

pytestmark = [pytest.mark.xdist_group("firebase"), pytest.mark.spec("F059")]

YAML = """\
version: 1
server: {{listen: "127.0.0.1:{port}"}}
storage: ./data
sources:
  app:
    type: firebase
    project: {project}
    emulator: true
    collections: [users]
    page_size: 10
    auth_url: http://{auth}/identitytoolkit.googleapis.com
    firestore_url: http://{firestore}
    listen: {listen}
destinations:
  people: {{type: customerio, site_id: {site}, api_key: {key}, base_url: "{customerio}", rate: 1000}}
connections:
  - {{from: app, to: [people], start: earliest, delete_guard: off}}
"""


class World:
    """The emulators, the simulator, and where towpath runs between them."""

    def __init__(self, client: firestore.Client, customerio: CustomerIoSimulator, file: Path) -> None:
        self.client = client
        self.customerio = customerio
        self.file = file
        self.random = random.Random(7)

    def change(self, count: int) -> None:
        """Do this many random things to documents and users, as an application would."""
        for _ in range(count):
            self._change_document(self.random.randrange(25))
            if self.random.random() < 0.3:
                self._change_user(self.random.randrange(8))

    def _change_document(self, number: int) -> None:
        document = self.client.document(f"users/d{number}")
        plan = self.random.choice(["gold", "free", "team"])
        match self.random.randrange(4):
            case 0:
                document.delete()
            case 1:
                document.set({"attributes": {"plan": plan, "count": self.random.randrange(100)}})
            case 2:
                document.set({"attributes": {"plan": plan}})
            case _:
                document.set({"attributes": {"extra": {"deep": [plan]}}}, merge=True)

    def _change_user(self, number: int) -> None:
        uid = f"a{number}"
        try:
            if self.random.random() < 0.4:
                auth.delete_user(uid)
            else:
                auth.update_user(uid, display_name=f"User {self.random.randrange(100)}")
        except auth.UserNotFoundError:
            auth.create_user(uid=uid, email=f"{uid}@x.com")

    def expected(self) -> dict[str, dict[str, Any]]:
        """What every person must have: what the documents and the users say now."""
        documents = {one.id: one.get("attributes") for one in self.client.collection("users").stream()}
        users = {
            user.uid: {"email": user.email, **({"display_name": name} if (name := user.display_name) else {})}
            for user in auth.list_users().iterate_all()
        }
        return documents | users

    def found(self) -> dict[str, dict[str, Any]]:
        """What Customer.io has of its people, without what Auth always sends along."""
        left_out = {"id", "cio_id", "created_at", "last_sign_in", "email_verified", "disabled"}
        return {
            person.attributes["id"]: {
                name: value for name, value in person.attributes.items() if name not in left_out
            }
            for person in self.customerio.state.people.values()
            if not person.deleted
        }

    async def people(self, count: int) -> None:
        """Wait until Customer.io has met this many people."""
        await until(lambda: len(self.customerio.state.people) >= count, PATIENCE_S)

    async def reconcile(self) -> None:
        """Compare by the command, and wait until everything is delivered."""
        done = await asyncio.to_thread(
            run, "firebase", "reconcile", "--config", str(self.file), cwd=self.file.parent
        )
        assert done.returncode == 0, done.stdout + done.stderr
        await delivered(self.file)


@asynccontextmanager
async def world(
    directory: Path, auth_at: str, monkeypatch: pytest.MonkeyPatch, *, listen: bool
) -> AsyncIterator[World]:
    [port] = emulators.free_ports(1)
    simulator = CustomerIoSimulator()
    try:
        with emulators.firestore(directory, functions=f"127.0.0.1:{port}") as firestore_at:
            monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_at)
            monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", auth_at)
            emulators.reset(f"http://{auth_at}/emulator/v1/projects/{PROJECT}/accounts")
            app = firebase_admin.initialize_app(options={"projectId": PROJECT})
            client = firestore.Client(project=PROJECT)
            async with serve(simulator) as url:
                given: Mapping[str, Any] = {"port": port, "auth": auth_at, "firestore": firestore_at}
                file = directory / "towpath.yaml"
                file.write_text(
                    YAML.format(
                        **given,
                        project=PROJECT,
                        customerio=url,
                        site=DEFAULT.site_id,
                        key=DEFAULT.api_key,
                        listen=json.dumps(listen),
                    )
                )
                if not listen:
                    emulators.push_documents(firestore_at, "app", "users/{id}")
                yield World(client, simulator, file)
            client.close()  # type: ignore[no-untyped-call]
            firebase_admin.delete_app(app)
    except Unavailable as error:
        pytest.skip(f"THE WHOLE WAY FROM FIREBASE WAS NOT TESTED: {error}")


def kill(hub: Hub) -> None:
    hub.end(signal.SIGKILL)


@pytest.mark.spec("F001", "F054", "F055", "F056", "F036", "F020", "F021", "P1", "P3")
@pytest.mark.parametrize("listen", [False, True], ids=["pushed", "listened"])
async def test_profiles_equal_the_documents_after_a_kill(
    tmp_path: Path, auth_at: str, monkeypatch: pytest.MonkeyPatch, listen: bool
) -> None:
    async with world(tmp_path, auth_at, monkeypatch, listen=listen) as here:
        with process(here.file) as hub:
            writing = asyncio.create_task(asyncio.to_thread(here.change, 60))
            await here.people(10)
            await asyncio.to_thread(kill, hub)
            await writing
        with process(here.file):
            await asyncio.to_thread(here.change, 20)
            await here.reconcile()
            expected = await asyncio.to_thread(here.expected)
            assert {uid[0] for uid in expected} == {"a", "d"}
            assert here.found() == expected
            requests = len(here.customerio.requests)
            await here.reconcile()
            assert len(here.customerio.requests) == requests


@pytest.mark.spec("F056")
async def test_a_backfill_goes_on_after_a_kill(
    tmp_path: Path, auth_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, auth_at, monkeypatch, listen=True) as here:

        def fill() -> None:
            writer = here.client.bulk_writer()
            for number in range(300):
                writer.set(here.client.document(f"users/d{number:03}"), {"attributes": {"number": number}})
            writer.close()  # type: ignore[no-untyped-call]

        await asyncio.to_thread(fill)
        text = here.file.read_text().replace("listen: true", "listen: false")
        here.file.write_text(text)
        command = ("firebase", "backfill", "--no-follow", "--config", str(here.file))
        with process(here.file) as hub:
            done = await asyncio.to_thread(run, *command, cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            await here.people(20)
            await asyncio.to_thread(kill, hub)
        with process(here.file):
            await here.people(300)
            await delivered(here.file)
        assert here.found() == {f"d{number:03}": {"number": number} for number in range(300)}
