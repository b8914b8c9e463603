"""Bulk jobs of the simulated Kustomer: taken at once, done later, each item with its own verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from towpath.clock import Clock

from .kustomer_documents import USER, Refusal, record
from .kustomer_schema import Invalid, check_customer
from .kustomer_state import Conflict, Customer, KustomerState, stamp

ITEMS_LIMIT = 100


class Job(Struct):
    """One bulk operation. It runs at `due_at` (Unix seconds); `results` has one entry per item then."""

    id: str
    kind: str
    items: Sequence[Mapping[str, Any]]
    taken_at: float
    due_at: float
    results: list[dict[str, Any]] = []
    done: bool = False


class Bulk:
    """The jobs of the organisation. `delay_s` is the time from the request to the work."""

    def __init__(self, state: KustomerState, clock: Clock, delay_s: float) -> None:
        self.jobs: dict[str, Job] = {}
        self._state = state
        self._clock = clock
        self._delay_s = delay_s
        self._waiting: list[Job] = []

    def take(self, kind: str, items: Any) -> Job:
        """Queue a job of kind create, update or delete. Raises `Refusal` for a list it does not take."""
        _check_list(items)
        now = self._clock.now()
        job = Job(self._state.new_id(), kind, items, now, now + self._delay_s)
        self.jobs[job.id] = job
        self._waiting.append(job)
        return job

    def settle(self) -> None:
        """Do the jobs whose time has come."""
        now = self._clock.now()
        while self._waiting and self._waiting[0].due_at <= now:
            job = self._waiting.pop(0)
            job.results = [self._result(job.kind, dict(item)) for item in job.items]
            job.done = True

    def document(self, job: Job) -> dict[str, Any]:
        """Return a job as `POST …/bulk` and `GET /v1/bulk/{id}` show it."""
        halfway = self._clock.now() >= job.taken_at + self._delay_s / 2
        status = "complete" if job.done else "running" if halfway else "queued"
        attributes = {
            "ids": [],
            "context": f"api.sobjects.customers.bulk-{job.kind}",
            "status": "queued" if self._clock.now() == job.taken_at else status,
            "v2": True,
            "payload": {"api": {}},
            "batches": {"complete": int(job.done), "total": 1},
            "createdAt": stamp(job.taken_at),
            "updatedAt": stamp(job.due_at if job.done else job.taken_at),
            "completed": job.done,
        }
        return {"data": record("bulk", job.id, attributes, {"createdBy": USER}, f"/v1/bulk/{job.id}")}

    def batches(self, job: Job) -> dict[str, Any]:
        """Return the verdicts of a job (the envelope around them is not documented)."""
        done = [result for result in job.results if result["status"] != "error"]
        attributes = {
            "status": "complete" if job.done else "queued",
            "successCount": len(done),
            "failureCount": len(job.results) - len(done),
            "objectIds": [result["objectId"] for result in done],
            "completedAt": stamp(job.due_at) if job.done else None,
            "results": job.results,
        }
        return {"meta": {}, "data": [{"type": "bulk_batch", "id": job.id, "attributes": attributes}]}

    def _result(self, kind: str, item: dict[str, Any]) -> dict[str, Any]:
        reference = {key: item.pop(key) for key in ("_clientRef",) if key in item}
        work: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "create": self._create,
            "update": self._update,
            "delete": self._delete,
        }
        try:
            return {**reference, **work[kind](item)}
        except Invalid as problem:
            return {**reference, "status": "error", "error": f"{problem.parameter}: {problem.title}"}
        except Conflict as conflict:
            return {**reference, "status": "error", "error": conflict.detail}

    def _create(self, item: dict[str, Any]) -> dict[str, Any]:
        check_customer(item)
        return {"objectId": self._state.create(item).id, "status": "created"}

    def _update(self, item: dict[str, Any]) -> dict[str, Any]:
        customer = self._known(item.pop("id", ""))
        check_customer(item)
        self._state.update(customer, item)
        return {"objectId": customer.id, "status": "updated"}

    def _delete(self, item: dict[str, Any]) -> dict[str, Any]:
        customer = self._known(item.pop("id", ""))
        self._state.delete(customer)
        return {"objectId": customer.id, "status": "deleted"}

    def _known(self, customer_id: Any) -> Customer:
        customer = self._state.customers.get(customer_id)
        if customer is None:
            raise Invalid("Not Found", "/id", "id")
        return customer


def _check_list(items: Any) -> None:
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Refusal(400, "badparam", "a bulk request is a list of at least one object", "body")
    if len(items) > ITEMS_LIMIT:
        raise Refusal(400, "badparam", f"Array is too long ({len(items)}), maximum 100", "body", "/maxItems")
    references = [item["_clientRef"] for item in items if "_clientRef" in item]
    if references and (len(references) != len(items) or len(set(map(str, references))) != len(items)):
        raise Refusal(400, "badparam", "_clientRef must be on every item, and unique", "_clientRef")
    if any(not isinstance(reference, str) or len(reference) > 255 for reference in references):
        raise Refusal(400, "badparam", "_clientRef is a string of at most 255 characters", "_clientRef")
