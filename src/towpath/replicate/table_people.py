"""The tables of people, segments, objects, and addresses that are not sent to."""

from __future__ import annotations

from ..vendors.customerio import AppApi
from ..warehouse import Column, Table
from .objects import CustomerRelationships, ObjectRelationships, Objects
from .people import People
from .reading_lists import Listed, Offset, PerParent, Whole
from .reading_snapshots import Daily
from .table import Replicated
from .table_content import CREATED_AT, DEDUPLICATE, DESCRIPTION, ID, NAME, TAGS, TYPE, UPDATED_AT

_CIO_ID = Column("cio_id", "text", "The person, as Customer.io numbers it")
_SEGMENT = Column("segment_id", "integer", "The segment")
_OBJECT = (
    Column("object_type_id", "text", "The type of object"),
    Column("cio_object_id", "text", "The object, as Customer.io numbers it"),
    Column("object_id", "text", "The object's id"),
)

PEOPLE = (
    Replicated(
        table=Table(
            "customers",
            (
                Column("cio_id", "text", "The person, as Customer.io numbers it; never changes"),
                Column("id", "text", "The person's id, if it has one", personal=True, blank_is_null=True),
                Column("email", "text", "The person's e-mail", personal=True, blank_is_null=True),
                Column("unsubscribed", "boolean", "Whether it takes no messages"),
                Column("attributes", "json", "All attributes; every value is text", personal=True),
                Column(
                    "timestamps", "json", "When each attribute was last set; null where people are exported"
                ),
                Column("devices", "json", "Its devices; null where people are exported", personal=True),
            ),
            key=("cio_id",),
            persons=("cio_id", "id", "email"),
            about="People with their attributes, those who have only an e-mail included.",
        ),
        endpoint="POST /v1/customers, POST /v1/customers/attributes; or POST /v1/exports/customers",
        reading=People(),
        aliases=("people",),
    ),
    Replicated(
        table=Table(
            "customer_relationships",
            (
                _CIO_ID,
                _OBJECT[0],
                Column("cio_object_id", "text", _OBJECT[1].about, ("identifiers", "cio_object_id")),
                Column("object_id", "text", _OBJECT[2].about, ("identifiers", "object_id")),
                Column("attributes", "json", "Attributes of the relationship", personal=True),
                Column("timestamps", "json", "When each was last set"),
            ),
            key=("cio_id", "object_type_id", "cio_object_id"),
            persons=("cio_id",),
            about="Which objects each person is related to; a request per person.",
        ),
        endpoint="GET /v1/customers/{id}/relationships",
        reading=CustomerRelationships(),
        optional=True,
    ),
    Replicated(
        table=Table(
            "segments",
            (
                ID,
                DEDUPLICATE,
                NAME,
                DESCRIPTION,
                Column("state", "text", "`finished`, or how far Customer.io is with finding its people"),
                Column("progress", "integer", "Percent of that"),
                TYPE,
                TAGS,
                Column("conditions", "json", "Who belongs to it"),
                CREATED_AT,
                UPDATED_AT,
            ),
            key=("id",),
            cursor="updated_at",
            about="Segments of people; archived ones vanish.",
        ),
        endpoint="GET /v1/segments",
        reading=Listed(AppApi.segments, "segments"),
        passes=True,
    ),
    Replicated(
        table=Table(
            "segment_memberships",
            (
                _SEGMENT,
                _CIO_ID,
                Column("id", "text", "The person's id, if it has one", personal=True, blank_is_null=True),
                Column("email", "text", "The person's e-mail", personal=True, blank_is_null=True),
            ),
            key=("segment_id", "cio_id"),
            persons=("cio_id", "id", "email"),
            about="Who is in which segment.",
        ),
        endpoint="GET /v1/segments/{id}/membership",
        reading=PerParent("segment_id", Listed(AppApi.segment_members, "identifiers", limit=30_000)),
        parent="segments",
        ready_parents=True,
        aliases=("segment_members", "segments_memberships"),
    ),
    Replicated(
        table=Table(
            "segment_usage",
            (
                _SEGMENT,
                Column("campaigns", "json", "Campaigns that use it", ("used_by", "campaigns")),
                Column("sent_newsletters", "json", "Sent newsletters", ("used_by", "sent_newsletters")),
                Column("draft_newsletters", "json", "Drafts", ("used_by", "draft_newsletters")),
            ),
            key=("segment_id",),
            about="What uses a segment.",
        ),
        endpoint="GET /v1/segments/{id}/used_by",
        reading=PerParent("segment_id", Whole(AppApi.segment_usage)),
        parent="segments",
    ),
    Replicated(
        table=Table(
            "segment_days",
            (
                Column("day", "date", "The day, UTC"),
                _SEGMENT,
                Column("members", "integer", "How many were in it", ("count",)),
            ),
            key=("day", "segment_id"),
            about="How many people were in a segment, day by day, from the first run on.",
        ),
        endpoint="GET /v1/segments/{id}/customer_count",
        reading=PerParent("segment_id", Daily(Whole(AppApi.segment_count))),
        parent="segments",
        vanishes=False,
        snapshot=True,
        optional=True,
    ),
    Replicated(
        table=Table(
            "object_types",
            (
                Column("id", "text", "The type; text, as the API sends it"),
                NAME,
                Column("singular_name", "text", "What one of them is called"),
                Column("slug", "text", "The name in addresses"),
                Column("singular_slug", "text", "The name of one in addresses"),
                Column("icon", "text", "Its picture"),
                Column("enabled", "boolean", "Whether it is in use"),
            ),
            key=("id",),
            about="Types of objects, like companies or courses.",
        ),
        endpoint="GET /v1/object_types",
        reading=Listed(AppApi.object_types, "types"),
        aliases=("types", "objects_types"),
    ),
    Replicated(
        table=Table(
            "objects",
            (
                _OBJECT[0],
                Column("cio_object_id", "text", _OBJECT[1].about, ("identifiers", "cio_object_id")),
                Column("object_id", "text", _OBJECT[2].about, ("identifiers", "object_id")),
                Column("attributes", "json", "All attributes"),
                Column("timestamps", "json", "When each was last set"),
            ),
            key=("object_type_id", "cio_object_id"),
            about="Objects with their attributes; a request per object.",
        ),
        endpoint="POST /v1/objects, GET /v1/objects/{type}/{id}/attributes",
        reading=Objects(),
        parent="object_types",
        optional=True,
    ),
    Replicated(
        table=Table(
            "object_relationships",
            (
                *_OBJECT[:2],
                Column("cio_id", "text", _CIO_ID.about, ("identifiers", "cio_id")),
                Column("id", "text", "The person's id", ("identifiers", "id"), personal=True),
                Column("email", "text", "The person's e-mail", ("identifiers", "email"), personal=True),
                Column("object_type_disabled", "boolean", "Whether the type is out of use"),
                Column("attributes", "json", "Attributes of the relationship", personal=True),
                Column("timestamps", "json", "When each was last set"),
            ),
            key=("object_type_id", "cio_object_id", "cio_id"),
            persons=("cio_id", "id", "email"),
            about="Which people each object is related to; a request per object.",
        ),
        endpoint="GET /v1/objects/{type}/{id}/relationships",
        reading=ObjectRelationships(),
        parent="object_types",
        optional=True,
    ),
    Replicated(
        table=Table(
            "esp_suppressions",
            (
                Column("suppression_type", "text", "`bounces`, `blocks`, `spam_reports`, `invalid_emails`"),
                Column("domain", "text", "The sending domain that was asked; empty without one"),
                Column("email", "text", "The address", personal=True),
                Column("created", "time", "Since when"),
                Column("reason", "text", "Why, in the receiving server's words"),
                Column("status", "text", "The status it gave"),
            ),
            key=("suppression_type", "domain", "email"),
            persons=("email",),
            about="Addresses that the mail provider does not send to; one that was lifted is gone.",
        ),
        endpoint="GET /v1/esp/suppression/{type}",
        reading=Offset(
            AppApi.suppressions,
            "suppressions",
            "suppression_type",
            ("bounces", "blocks", "spam_reports", "invalid_emails"),
            limit=1000,
        ),
        aliases=("eps_suppression", "esp_suppression"),
    ),
)
