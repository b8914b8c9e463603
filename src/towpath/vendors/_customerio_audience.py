"""Customer.io's App API: people, their activities and deliveries, segments, objects, exports."""

from __future__ import annotations

from typing import Literal, Unpack

from towpath.http import Reply

from ._customerio_api import NOT_FOUND, Body, Id, IdType
from ._customerio_reading import Paging, Reading

ObjectIdType = Literal["object_id", "cio_object_id"]


class OwnDeliveries(Paging, total=False):
    """What one person's deliveries are asked by; times in Unix seconds."""

    id_type: IdType
    start_ts: int
    end_ts: int


class Related(Paging, total=False):
    """What one person's relationships are asked by."""

    id_type: IdType


class OwnActivities(Paging, total=False):
    """What one person's activities are asked by; limit at most 100."""

    id_type: IdType
    type: str
    name: str


class Activities(OwnActivities, total=False):
    """What all activities are asked by."""

    deleted: bool
    customer_id: str


class AllDeliveries(Paging, total=False):
    """What all deliveries are asked by; limit at most 1,000; times in Unix seconds, both ends included."""

    type: str
    metric: str
    drafts: bool
    campaign_id: Id
    newsletter_id: Id
    action_id: Id
    start_ts: int
    end_ts: int


class People(Reading):
    """People. A cio_id in a path goes behind `cio_`, or plain with `id_type="cio_id"`.

    What is asked about one person answers 404 for one that is not there, which is returned.
    """

    async def customers_by_email(self, email: str) -> Reply:
        """GET /v1/customers?email=: `{results: [{email, id, cio_id}]}`."""
        return await self.read("customers", email=email)

    async def search_customers(self, body: Body, **query: Unpack[Paging]) -> Reply:
        """POST /v1/customers `{filter}`: `{identifiers, ids, next}`, null for none; limit at most 1,000."""
        return await self.post("customers", body=body, **query)

    async def customers_attributes(self, body: Body, *, id_type: IdType | None = None) -> Reply:
        """POST /v1/customers/attributes `{ids}`, at most 100: `{customers}` without the unknown."""
        return await self.post("customers", "attributes", body=body, id_type=id_type)

    async def customer_attributes(self, customer_id: str, *, id_type: IdType | None = None) -> Reply:
        """GET /v1/customers/{id}/attributes: `{customer: {id, identifiers, attributes, timestamps, …}}`.

        Every value of `attributes` is text.
        """
        return await self._about(customer_id, "attributes", id_type=id_type)

    async def customer_segments(self, customer_id: str, *, id_type: IdType | None = None) -> Reply:
        """GET /v1/customers/{id}/segments: `{segments}`."""
        return await self._about(customer_id, "segments", id_type=id_type)

    async def customer_messages(self, customer_id: str, **query: Unpack[OwnDeliveries]) -> Reply:
        """GET /v1/customers/{id}/messages: `{messages, next}`."""
        return await self._about(customer_id, "messages", **query)

    async def customer_activities(self, customer_id: str, **query: Unpack[OwnActivities]) -> Reply:
        """GET /v1/customers/{id}/activities: `{activities, next}`, newest first."""
        return await self._about(customer_id, "activities", **query)

    async def customer_relationships(self, customer_id: str, **query: Unpack[Related]) -> Reply:
        """GET /v1/customers/{id}/relationships: `{cio_relationships, next}`; pages may repeat entries."""
        return await self._about(customer_id, "relationships", **query)

    async def customer_subscription_preferences(
        self, customer_id: str, *, id_type: IdType | None = None, language: str | None = None
    ) -> Reply:
        """GET /v1/customers/{id}/subscription_preferences."""
        return await self._about(customer_id, "subscription_preferences", id_type=id_type, language=language)

    async def _about(self, customer_id: str, what: str, **query: object) -> Reply:
        return await self.read("customers", customer_id, what, allow=(NOT_FOUND,), **query)

    async def activities(self, **query: Unpack[Activities]) -> Reply:
        """GET /v1/activities: `{activities, next}`, newest first, about 30 days back; limit at most 100."""
        return await self.read("activities", **query)

    async def messages(self, **query: Unpack[AllDeliveries]) -> Reply:
        """GET /v1/messages: `{messages, next}`, newest first; without a window the last six months."""
        return await self.read("messages", **query)

    async def message(self, message_id: str) -> Reply:
        """GET /v1/messages/{id}: `{message}`."""
        return await self.read("messages", message_id)

    async def archived_message(self, message_id: str) -> Reply:
        """GET /v1/messages/{id}/archived_message: `{archived_message}` as it was sent."""
        return await self.read("messages", message_id, "archived_message")


class Segments(Reading):
    """Segments; only manual ones can be made, changed and deleted from outside."""

    async def segments(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/segments: `{segments}`, all at once."""
        return await self.read("segments", **query)

    async def segment(self, segment_id: Id) -> Reply:
        """GET /v1/segments/{id}: `{segment}`."""
        return await self.read("segments", segment_id)

    async def create_segment(self, body: Body) -> Reply:
        """POST /v1/segments `{segment: {name, description}}`: a manual one."""
        return await self.post("segments", body=body)

    async def delete_segment(self, segment_id: Id) -> Reply:
        """DELETE /v1/segments/{id}: 204."""
        return await self.remove("segments", segment_id)

    async def segment_count(self, segment_id: Id) -> Reply:
        """GET /v1/segments/{id}/customer_count: `{segment_id, count}`."""
        return await self.read("segments", segment_id, "customer_count")

    async def segment_members(self, segment_id: Id, **query: Unpack[Paging]) -> Reply:
        """GET /v1/segments/{id}/membership: `{identifiers: [{id, email, cio_id}], ids, next}`.

        Limit at most 30,000. Null lists and empty pages with a `next` occur; `ids` has "" for those without.
        """
        return await self.read("segments", segment_id, "membership", **query)

    async def segment_usage(self, segment_id: Id) -> Reply:
        """GET /v1/segments/{id}/used_by: `{used_by: {campaigns, sent_newsletters, draft_newsletters}}`."""
        return await self.read("segments", segment_id, "used_by")


class Objects(Reading):
    """Things that are no people, and how people relate to them."""

    async def object_types(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/object_types: `{types}`; their ids are text."""
        return await self.read("object_types", **query)

    async def search_objects(self, body: Body, **query: Unpack[Paging]) -> Reply:
        """POST /v1/objects `{object_type_id, filter}`: `{identifiers: [{object_id, …}], next}`."""
        return await self.post("objects", body=body, **query)

    async def object_attributes(
        self, object_type_id: Id, object_id: str, *, id_type: ObjectIdType | None = None
    ) -> Reply:
        """GET /v1/objects/{type}/{id}/attributes: `{object}`."""
        return await self.read("objects", object_type_id, object_id, "attributes", id_type=id_type)

    async def object_relationships(
        self,
        object_type_id: Id,
        object_id: str,
        *,
        id_type: ObjectIdType | None = None,
        **query: Unpack[Paging],
    ) -> Reply:
        """GET /v1/objects/{type}/{id}/relationships: `{cio_relationships, next}`."""
        where = ("objects", object_type_id, object_id, "relationships")
        return await self.read(*where, id_type=id_type, **query)


class Exports(Reading):
    """Exports of people and deliveries, which the vendor prepares in its own time."""

    async def exports(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/exports: `{exports}`, all at once."""
        return await self.read("exports", **query)

    async def export(self, export_id: Id) -> Reply:
        """GET /v1/exports/{id}: `{export: {status: done|pending|failed, …}}`."""
        return await self.read("exports", export_id)

    async def export_link(self, export_id: Id) -> Reply:
        """GET /v1/exports/{id}/download: `{url}`, good for 15 minutes."""
        return await self.read("exports", export_id, "download")

    async def export_customers(self, body: Body) -> Reply:
        """POST /v1/exports/customers `{filters}`: `{export}`."""
        return await self.post("exports", "customers", body=body)

    async def export_deliveries(self, body: Body) -> Reply:
        """POST /v1/exports/deliveries `{campaign_id|newsletter_id|…, start, end, metric}`: `{export}`."""
        return await self.post("exports", "deliveries", body=body)
