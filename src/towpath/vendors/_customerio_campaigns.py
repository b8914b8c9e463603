"""Customer.io's App API: campaigns, broadcasts, newsletters, transactional messages, and metrics."""

from __future__ import annotations

from typing import Literal, TypedDict, Unpack

from towpath.http import Reply

from ._customerio_api import Id
from ._customerio_reading import Paging, Reading

Period = Literal["hours", "days", "weeks", "months"]
Channel = Literal["email", "webhook", "twilio", "slack", "push", "in_app"]


class Steps(TypedDict, total=False):
    """What metrics are asked by: so many periods back from now."""

    period: Period
    steps: int
    type: Channel


class Metrics(Steps, total=False):
    """What metrics are asked by: `version` "1" with period and steps, or "2" with the others."""

    version: Literal["1", "2"]
    res: str
    tz: str
    start: int
    end: int


class LinkMetrics(TypedDict, total=False):
    """What metrics of links are asked by."""

    period: Period
    steps: int
    unique: bool


class Deliveries(Paging, total=False):
    """What deliveries are asked by: pages, kinds, and a window in Unix seconds, both ends included."""

    type: str
    metric: str
    state: str
    drafts: bool
    start_ts: int
    end_ts: int


class Campaigns(Reading):
    """Campaigns. A metric is a series, oldest first: `{metric: {series: {sent: […], …}}}`."""

    async def campaigns(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/campaigns: `{campaigns}`, all at once; should a `next` come, it is followed."""
        return await self.read("campaigns", **query)

    async def campaign(self, campaign_id: Id) -> Reply:
        """GET /v1/campaigns/{id}: `{campaign}`."""
        return await self.read("campaigns", campaign_id)

    async def campaign_metrics(self, campaign_id: Id, **query: Unpack[Metrics]) -> Reply:
        """GET /v1/campaigns/{id}/metrics; the vendor requires `version`."""
        return await self.read("campaigns", campaign_id, "metrics", **query)

    async def campaign_link_metrics(self, campaign_id: Id, **query: Unpack[LinkMetrics]) -> Reply:
        """GET /v1/campaigns/{id}/metrics/links: `{links: [{link, metric}]}`."""
        return await self.read("campaigns", campaign_id, "metrics", "links", **query)

    async def campaign_journey_metrics(self, campaign_id: Id, *, start: int, end: int, res: str) -> Reply:
        """GET /v1/campaigns/{id}/journey_metrics: `{journey_metric: {started, finished, …}}`."""
        return await self.read("campaigns", campaign_id, "journey_metrics", start=start, end=end, res=res)

    async def campaign_actions(self, campaign_id: Id, *, start: str | None = None) -> Reply:
        """GET /v1/campaigns/{id}/actions: `{actions, next}`; live, an action's id is text."""
        return await self.read("campaigns", campaign_id, "actions", start=start)

    async def campaign_action(self, campaign_id: Id, action_id: Id) -> Reply:
        """GET /v1/campaigns/{id}/actions/{action_id}."""
        return await self.read("campaigns", campaign_id, "actions", action_id)

    async def campaign_action_metrics(
        self, campaign_id: Id, action_id: Id, **query: Unpack[Metrics]
    ) -> Reply:
        """GET /v1/campaigns/{id}/actions/{action_id}/metrics."""
        return await self.read("campaigns", campaign_id, "actions", action_id, "metrics", **query)

    async def campaign_action_link_metrics(
        self, campaign_id: Id, action_id: Id, **query: Unpack[Steps]
    ) -> Reply:
        """GET /v1/campaigns/{id}/actions/{action_id}/metrics/links."""
        return await self.read("campaigns", campaign_id, "actions", action_id, "metrics", "links", **query)

    async def campaign_messages(self, campaign_id: Id, **query: Unpack[Deliveries]) -> Reply:
        """GET /v1/campaigns/{id}/messages: `{messages, next}`."""
        return await self.read("campaigns", campaign_id, "messages", **query)


class Broadcasts(Reading):
    """Broadcasts that the API triggers."""

    async def broadcasts(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/broadcasts: `{broadcasts}`, all at once; `tags` may be null or text."""
        return await self.read("broadcasts", **query)

    async def broadcast(self, broadcast_id: Id) -> Reply:
        """GET /v1/broadcasts/{id}: `{broadcast}`."""
        return await self.read("broadcasts", broadcast_id)

    async def broadcast_metrics(self, broadcast_id: Id, **query: Unpack[Metrics]) -> Reply:
        """GET /v1/broadcasts/{id}/metrics."""
        return await self.read("broadcasts", broadcast_id, "metrics", **query)

    async def broadcast_link_metrics(self, broadcast_id: Id, **query: Unpack[LinkMetrics]) -> Reply:
        """GET /v1/broadcasts/{id}/metrics/links."""
        return await self.read("broadcasts", broadcast_id, "metrics", "links", **query)

    async def broadcast_actions(self, broadcast_id: Id, *, start: str | None = None) -> Reply:
        """GET /v1/broadcasts/{id}/actions: `{actions}`, and `next` where there are more."""
        return await self.read("broadcasts", broadcast_id, "actions", start=start)

    async def broadcast_action(self, broadcast_id: Id, action_id: Id) -> Reply:
        """GET /v1/broadcasts/{id}/actions/{action_id}."""
        return await self.read("broadcasts", broadcast_id, "actions", action_id)

    async def broadcast_action_metrics(
        self, broadcast_id: Id, action_id: Id, **query: Unpack[Steps]
    ) -> Reply:
        """GET /v1/broadcasts/{id}/actions/{action_id}/metrics."""
        return await self.read("broadcasts", broadcast_id, "actions", action_id, "metrics", **query)

    async def broadcast_action_link_metrics(
        self, broadcast_id: Id, action_id: Id, **query: Unpack[Steps]
    ) -> Reply:
        """GET /v1/broadcasts/{id}/actions/{action_id}/metrics/links."""
        return await self.read("broadcasts", broadcast_id, "actions", action_id, "metrics", "links", **query)

    async def broadcast_messages(self, broadcast_id: Id, **query: Unpack[Deliveries]) -> Reply:
        """GET /v1/broadcasts/{id}/messages: `{messages, next}`."""
        return await self.read("broadcasts", broadcast_id, "messages", **query)

    async def broadcast_triggers(self, broadcast_id: Id) -> Reply:
        """GET /v1/broadcasts/{id}/triggers: `{triggers}`."""
        return await self.read("broadcasts", broadcast_id, "triggers")

    async def broadcast_trigger(self, broadcast_id: Id, trigger_id: Id) -> Reply:
        """GET /v1/campaigns/{broadcast_id}/triggers/{trigger_id}: its state."""
        return await self.read("campaigns", broadcast_id, "triggers", trigger_id)

    async def broadcast_trigger_errors(
        self, broadcast_id: Id, trigger_id: Id, **query: Unpack[Paging]
    ) -> Reply:
        """GET /v1/campaigns/{broadcast_id}/triggers/{trigger_id}/errors: `{errors, next}`."""
        return await self.read("campaigns", broadcast_id, "triggers", trigger_id, "errors", **query)


class Newsletters(Reading):
    """Newsletters and what they contain."""

    async def newsletters(
        self, *, sort: Literal["asc", "desc"] | None = None, **query: Unpack[Paging]
    ) -> Reply:
        """GET /v1/newsletters: `{newsletters, next}`; limit at most 100."""
        return await self.read("newsletters", sort=sort, **query)

    async def newsletter(self, newsletter_id: Id) -> Reply:
        """GET /v1/newsletters/{id}: `{newsletter}`."""
        return await self.read("newsletters", newsletter_id)

    async def newsletter_metrics(self, newsletter_id: Id, **query: Unpack[Metrics]) -> Reply:
        """GET /v1/newsletters/{id}/metrics."""
        return await self.read("newsletters", newsletter_id, "metrics", **query)

    async def newsletter_link_metrics(self, newsletter_id: Id, **query: Unpack[LinkMetrics]) -> Reply:
        """GET /v1/newsletters/{id}/metrics/links."""
        return await self.read("newsletters", newsletter_id, "metrics", "links", **query)

    async def newsletter_contents(self, newsletter_id: Id, **query: Unpack[Paging]) -> Reply:
        """GET /v1/newsletters/{id}/contents: `{contents}`."""
        return await self.read("newsletters", newsletter_id, "contents", **query)

    async def newsletter_content_metrics(
        self, newsletter_id: Id, content_id: Id, **query: Unpack[Steps]
    ) -> Reply:
        """GET /v1/newsletters/{id}/contents/{content_id}/metrics."""
        return await self.read("newsletters", newsletter_id, "contents", content_id, "metrics", **query)

    async def newsletter_content(self, newsletter_id: Id, content_id: Id) -> Reply:
        """GET /v1/newsletters/{id}/contents/{content_id}: `{content}`."""
        return await self.read("newsletters", newsletter_id, "contents", content_id)

    async def newsletter_content_link_metrics(
        self, newsletter_id: Id, content_id: Id, **query: Unpack[Steps]
    ) -> Reply:
        """GET /v1/newsletters/{id}/contents/{content_id}/metrics/links."""
        where = ("newsletters", newsletter_id, "contents", content_id, "metrics", "links")
        return await self.read(*where, **query)

    async def newsletter_test_groups(self, newsletter_id: Id, **query: Unpack[Paging]) -> Reply:
        """GET /v1/newsletters/{id}/test_groups: `{test_groups}`."""
        return await self.read("newsletters", newsletter_id, "test_groups", **query)

    async def newsletter_messages(self, newsletter_id: Id, **query: Unpack[Deliveries]) -> Reply:
        """GET /v1/newsletters/{id}/messages: `{messages, next}`."""
        return await self.read("newsletters", newsletter_id, "messages", **query)


class Transactional(Reading):
    """Templates of transactional messages."""

    async def transactional_messages(self, **query: Unpack[Paging]) -> Reply:
        """GET /v1/transactional: `{messages}`, all at once: the templates, not what was sent."""
        return await self.read("transactional", **query)

    async def transactional_message(self, transactional_id: Id) -> Reply:
        """GET /v1/transactional/{id}: `{message}`."""
        return await self.read("transactional", transactional_id)

    async def transactional_contents(self, transactional_id: Id) -> Reply:
        """GET /v1/transactional/{id}/contents: `{contents}`."""
        return await self.read("transactional", transactional_id, "contents")

    async def transactional_metrics(self, transactional_id: Id, **query: Unpack[Steps]) -> Reply:
        """GET /v1/transactional/{id}/metrics."""
        return await self.read("transactional", transactional_id, "metrics", **query)

    async def transactional_link_metrics(self, transactional_id: Id, **query: Unpack[LinkMetrics]) -> Reply:
        """GET /v1/transactional/{id}/metrics/links."""
        return await self.read("transactional", transactional_id, "metrics", "links", **query)

    async def transactional_deliveries(self, transactional_id: Id, **query: Unpack[Deliveries]) -> Reply:
        """GET /v1/transactional/{id}/messages: `{messages, next}`: what was sent."""
        return await self.read("transactional", transactional_id, "messages", **query)
