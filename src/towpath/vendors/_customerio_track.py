"""Customer.io's Track API, v1 and v2: what is written about people, events, devices and objects."""

from __future__ import annotations

from towpath.http import LARGEST_READ_BYTES, Reply

from ._customerio_api import Body, Id, IdType, VendorApi, segment


def region_url(base_url: str) -> str:
    """Where the account's region is asked."""
    return f"{base_url}/api/v1/accounts/region"


def customer_url(base_url: str, identifier: str) -> str:
    """Where one person is written or deleted: an e-mail, `cio_` and a cio_id, or else an id."""
    return f"{base_url}/api/v1/customers/{segment(identifier)}"


def customer_events_url(base_url: str, identifier: str) -> str:
    """Where an event of one person goes."""
    return f"{customer_url(base_url, identifier)}/events"


def anonymous_events_url(base_url: str) -> str:
    """Where an event of nobody known goes."""
    return f"{base_url}/api/v1/events"


def merge_url(base_url: str) -> str:
    """Where two people become one."""
    return f"{base_url}/api/v1/merge_customers"


def entity_url(base_url: str) -> str:
    """Where one v2 item goes."""
    return f"{base_url}/api/v2/entity"


def batch_url(base_url: str) -> str:
    """Where many v2 items go."""
    return f"{base_url}/api/v2/batch"


class TrackApi(VendorApi):
    """The Track API at `base_url`, with `track_credentials`. A 200 says `{}` unless a method says else.

    An `identifier` is an e-mail when it has an `@`, a cio_id behind `cio_`, else an id. Source: Customer.io's
    Track OpenAPI document and its page "Invalid Track API requests".
    """

    bucket = "track"

    async def region(self) -> Reply:
        """GET /api/v1/accounts/region: `{url, region: us|eu, environment_id}`; 401 for a bad key."""
        return await self.call("GET", region_url(self.base_url))

    async def identify(self, identifier: str, attributes: Body) -> Reply:
        """PUT /api/v1/customers/{identifier}: attributes, reserved keys and `cio_relationships`."""
        return await self.call("PUT", customer_url(self.base_url, identifier), attributes)

    async def delete_customer(self, identifier: str) -> Reply:
        """DELETE /api/v1/customers/{identifier}."""
        return await self.call("DELETE", customer_url(self.base_url, identifier))

    async def add_device(self, identifier: str, body: Body) -> Reply:
        """PUT …/customers/{identifier}/devices `{device: {id, platform, last_used, attributes}}`."""
        return await self.call("PUT", f"{customer_url(self.base_url, identifier)}/devices", body)

    async def delete_device(self, identifier: str, device_id: str) -> Reply:
        """DELETE …/customers/{identifier}/devices/{device_id}."""
        url = f"{customer_url(self.base_url, identifier)}/devices/{segment(device_id)}"
        return await self.call("DELETE", url)

    async def suppress(self, identifier: str) -> Reply:
        """POST …/customers/{identifier}/suppress: deletes the person and blocks its identifiers."""
        return await self.call("POST", f"{customer_url(self.base_url, identifier)}/suppress")

    async def unsuppress(self, identifier: str) -> Reply:
        """POST …/customers/{identifier}/unsuppress: the identifiers may come again; the profile does not."""
        return await self.call("POST", f"{customer_url(self.base_url, identifier)}/unsuppress")

    async def unsubscribe(self, delivery_id: str, body: Body) -> Reply:
        """POST /unsubscribe/{delivery_id} `{unsubscribe: true}`: as the recipient's mail program does."""
        return await self.call("POST", self.url("unsubscribe", delivery_id), body)

    async def track(self, identifier: str, event: Body) -> Reply:
        """POST …/customers/{identifier}/events `{name, type, id: ULID, timestamp: s, data}`."""
        return await self.call("POST", customer_events_url(self.base_url, identifier), event)

    async def track_anonymous(self, event: Body) -> Reply:
        """POST /api/v1/events `{name, anonymous_id, type, id, timestamp, data}`."""
        return await self.call("POST", anonymous_events_url(self.base_url), event)

    async def submit_form(self, form_id: str, body: Body) -> Reply:
        """POST /api/v1/forms/{form_id}/submit `{data: {email|id, …}}`: 204."""
        return await self.call("POST", self.url("api", "v1", "forms", form_id, "submit"), body)

    async def merge(self, body: Body) -> Reply:
        """POST /api/v1/merge_customers `{primary, secondary}`, one identifier each."""
        return await self.call("POST", merge_url(self.base_url), body)

    async def report_metric(self, body: Body) -> Reply:
        """POST /api/v1/metrics `{delivery_id, metric, timestamp, recipient, reason, href}`."""
        return await self.call("POST", self.url("api", "v1", "metrics"), body)

    async def report_push(self, body: Body) -> Reply:
        """POST /api/v1/push/events `{delivery_id, event, device_id, timestamp}`: older than `metrics`."""
        return await self.call("POST", self.url("api", "v1", "push", "events"), body)

    async def add_to_segment(self, segment_id: Id, body: Body, id_type: IdType = "id") -> Reply:
        """POST /api/v1/segments/{id}/add_customers `{ids}`: at most 1,000, to a manual segment."""
        return await self._change_segment(segment_id, "add_customers", body, id_type)

    async def remove_from_segment(self, segment_id: Id, body: Body, id_type: IdType = "id") -> Reply:
        """POST /api/v1/segments/{id}/remove_customers `{ids}`: at most 1,000, from a manual segment."""
        return await self._change_segment(segment_id, "remove_customers", body, id_type)

    async def _change_segment(self, segment_id: Id, how: str, body: Body, id_type: IdType) -> Reply:
        url = self.url("api", "v1", "segments", segment_id, how, id_type=id_type)
        return await self.call("POST", url, body)

    async def entity(self, item: Body) -> Reply:
        """POST /api/v2/entity, one `{type, action, identifiers, …}` of at most 32 KB; 400 `{errors}`."""
        return await self.call("POST", entity_url(self.base_url), item)

    async def batch(self, body: Body) -> Reply:
        """POST /api/v2/batch `{batch: [item, …]}`, at most 500 KB.

        200, or 207 `{errors: [{batch_index, reason, field, message}]}`: all items that it does not name are
        accepted. The answer is read whole, up to 8 MiB.
        """
        return await self.call("POST", batch_url(self.base_url), body, limit_bytes=LARGEST_READ_BYTES)
