"""Customer.io's App API: the workspace itself, its webhooks and suppressions, and what is sent at once."""

from __future__ import annotations

from typing import Literal, Unpack

from towpath.http import Reply

from ._customerio_api import Body, Id
from ._customerio_reading import Paging, Reading

Suppression = Literal["bounces", "blocks", "spam_reports", "invalid_emails"]


class Workspace(Reading):
    """What a workspace consists of beside people and campaigns."""

    async def workspaces(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/workspaces: `{workspaces: [{id, name, people, …}]}`, up to two hours old."""
        return await self.read("workspaces", **query)

    async def ip_addresses(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/info/ip_addresses: `{ip_addresses: ["…"]}`: where Customer.io calls from."""
        return await self.read("info", "ip_addresses", **query)

    async def subscription_topics(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/subscription_topics: `{topics}`."""
        return await self.read("subscription_topics", **query)

    async def sender_identities(
        self,
        *,
        sort: Literal["asc", "desc"] | None = None,
        hidden: bool | None = None,
        **query: Unpack[Paging],
    ) -> Reply:
        """GET /v1/sender_identities: `{sender_identities, next}`; limit at most 100."""
        return await self.read("sender_identities", sort=sort, hidden=hidden, **query)

    async def sender_identity(self, sender_id: Id) -> Reply:
        """GET /v1/sender_identities/{id}: `{sender_identity}`."""
        return await self.read("sender_identities", sender_id)

    async def sender_identity_usage(self, sender_id: Id) -> Reply:
        """GET /v1/sender_identities/{id}/used_by."""
        return await self.read("sender_identities", sender_id, "used_by")

    async def snippets(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/snippets: `{snippets: [{name, value, updated_at}]}`."""
        return await self.read("snippets", **query)

    async def put_snippet(self, body: Body) -> Reply:
        """PUT /v1/snippets `{name, value}`."""
        return await self.put("snippets", body=body)

    async def delete_snippet(self, name: str) -> Reply:
        """DELETE /v1/snippets/{name}: 204."""
        return await self.remove("snippets", name)

    async def collections(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/collections: `{collections}`."""
        return await self.read("collections", **query)

    async def collection(self, collection_id: Id) -> Reply:
        """GET /v1/collections/{id}: `{collection}`."""
        return await self.read("collections", collection_id)

    async def collection_content(self, collection_id: Id) -> Reply:
        """GET /v1/collections/{id}/content: its rows."""
        return await self.read("collections", collection_id, "content")

    async def create_collection(self, body: Body) -> Reply:
        """POST /v1/collections `{name, data|url}`: `{collection}`."""
        return await self.post("collections", body=body)

    async def update_collection(self, collection_id: Id, body: Body) -> Reply:
        """PUT /v1/collections/{id} `{name, data|url}`: `{collection}`."""
        return await self.put("collections", collection_id, body=body)

    async def put_collection_content(self, collection_id: Id, body: Body) -> Reply:
        """PUT /v1/collections/{id}/content: its rows anew."""
        return await self.put("collections", collection_id, "content", body=body)

    async def delete_collection(self, collection_id: Id) -> Reply:
        """DELETE /v1/collections/{id}: 204."""
        return await self.remove("collections", collection_id)


class ReportingWebhooks(Reading):
    """Where Customer.io reports deliveries and subscriptions to."""

    async def reporting_webhooks(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/reporting_webhooks: `{reporting_webhooks: [{id, name, endpoint, disabled, events}]}`."""
        return await self.read("reporting_webhooks", **query)

    async def reporting_webhook(self, webhook_id: Id) -> Reply:
        """GET /v1/reporting_webhooks/{id}."""
        return await self.read("reporting_webhooks", webhook_id)

    async def create_reporting_webhook(self, body: Body) -> Reply:
        """POST /v1/reporting_webhooks `{name, endpoint, events, full_resolution, with_content, disabled}`."""
        return await self.post("reporting_webhooks", body=body)

    async def update_reporting_webhook(self, webhook_id: Id, body: Body) -> Reply:
        """PUT /v1/reporting_webhooks/{id}: the same fields."""
        return await self.put("reporting_webhooks", webhook_id, body=body)

    async def delete_reporting_webhook(self, webhook_id: Id) -> Reply:
        """DELETE /v1/reporting_webhooks/{id}: 204."""
        return await self.remove("reporting_webhooks", webhook_id)


class Suppressions(Reading):
    """Addresses that the mail provider behind Customer.io no longer sends to."""

    async def suppressions(
        self,
        suppression: Suppression,
        *,
        limit: int | None = None,
        offset: int | None = None,
        domain: str | None = None,
    ) -> Reply:
        """GET /v1/esp/suppression/{type}: `{category, suppressions}`, null for none.

        Limit at most 1,000; the next page is the offset behind it. `domain` is the sending domain.
        """
        return await self.read("esp", "suppression", suppression, limit=limit, offset=offset, domain=domain)

    async def find_suppression(self, email: str) -> Reply:
        """GET /v1/esp/search_suppression/{email}."""
        return await self.read("esp", "search_suppression", email)

    async def add_suppression(self, suppression: Suppression, email: str) -> Reply:
        """POST /v1/esp/suppression/{type}/{email}."""
        return await self.post("esp", "suppression", suppression, email)

    async def lift_suppression(self, suppression: Suppression, email: str) -> Reply:
        """DELETE /v1/esp/suppression/{type}/{email}: 204."""
        return await self.remove("esp", "suppression", suppression, email)


class Sending(Reading):
    """What is sent at once. There is no idempotency key: what is repeated may arrive twice."""

    async def send_email(self, body: Body) -> Reply:
        """POST /v1/send/email `{to, identifiers, transactional_message_id | from, subject, body, …}`.

        `{delivery_id, queued_at}`; 400, 403 and 413 say `{meta: {error}}`.
        """
        return await self.post("send", "email", body=body)

    async def send_push(self, body: Body) -> Reply:
        """POST /v1/send/push `{transactional_message_id, to, identifiers, title, message, …}`."""
        return await self.post("send", "push", body=body)

    async def send_sms(self, body: Body) -> Reply:
        """POST /v1/send/sms `{transactional_message_id, to, from, body, identifiers}`."""
        return await self.post("send", "sms", body=body)

    async def send_in_app(self, body: Body) -> Reply:
        """POST /v1/send/in_app `{transactional_message_id, identifiers, message_data}`."""
        return await self.post("send", "in_app", body=body)

    async def send_inbox_message(self, body: Body) -> Reply:
        """POST /v1/send/inbox_message `{transactional_message_id, identifiers, message_data}`."""
        return await self.post("send", "inbox_message", body=body)

    async def trigger_broadcast(self, broadcast_id: Id, body: Body) -> Reply:
        """POST /v1/campaigns/{broadcast_id}/triggers `{data, recipients|ids|…}`: `{id}`; one in 10 s."""
        return await self.post("campaigns", broadcast_id, "triggers", body=body)
