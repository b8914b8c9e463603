"""Customer.io's HTTP APIs (Track, App, Pipelines): one method per endpoint, addresses, credentials, pages."""

from __future__ import annotations

from ._customerio_api import (
    APP_URLS,
    NOT_FOUND,
    PIPELINES_URLS,
    REGIONS,
    TRACK_URLS,
    Body,
    Id,
    IdType,
    Region,
    app_credentials,
    pages,
    pipelines_credentials,
    segment,
    track_credentials,
)
from ._customerio_audience import Exports, Objects, People, Segments
from ._customerio_campaigns import Broadcasts, Campaigns, Newsletters, Transactional
from ._customerio_pipelines import STRICT, PipelinesApi, pipelines_url
from ._customerio_track import (
    TrackApi,
    anonymous_events_url,
    batch_url,
    customer_events_url,
    customer_url,
    entity_url,
    merge_url,
    region_url,
)
from ._customerio_workspace import ReportingWebhooks, Sending, Suppressions, Workspace

__all__ = [
    "APP_URLS",
    "NOT_FOUND",
    "PIPELINES_URLS",
    "REGIONS",
    "STRICT",
    "TRACK_URLS",
    "AppApi",
    "Body",
    "Id",
    "IdType",
    "PipelinesApi",
    "Region",
    "TrackApi",
    "anonymous_events_url",
    "app_credentials",
    "batch_url",
    "customer_events_url",
    "customer_url",
    "entity_url",
    "merge_url",
    "pages",
    "pipelines_credentials",
    "pipelines_url",
    "region_url",
    "segment",
    "track_credentials",
]


class AppApi(
    Campaigns,
    Broadcasts,
    Newsletters,
    Transactional,
    People,
    Segments,
    Objects,
    Exports,
    Workspace,
    ReportingWebhooks,
    Suppressions,
    Sending,
):
    """The App API at `base_url`, with `app_credentials`: what is read, and what is sent at once.

    A list comes whole, or in pages that `pages` follows. Errors come in three shapes: `{errors: [{detail,
    status}]}`, the same with `source.pointer`, and `{meta: {error}}`. Source: Customer.io's App OpenAPI
    document; where the live API is known to differ, the method says so.
    """
