"""The tables of what is sent and how it is made: campaigns, newsletters, templates, and their parts."""

from __future__ import annotations

from ..vendors.customerio import AppApi
from ..warehouse import Column, Table
from .reading_lists import Listed, PerParent, Whole
from .table import Replicated

ID = Column("id", "integer", "Number of it in the workspace")
NAME = Column("name", "text", "What it is called")
TYPE = Column("type", "text", "Its kind")
CREATED = Column("created", "time", "When it was made")
UPDATED = Column("updated", "time", "When it was last changed")
CREATED_AT = Column("created_at", "time", "When it was made")
UPDATED_AT = Column("updated_at", "time", "When it was last changed")
DEDUPLICATE = Column("deduplicate_id", "text", "`id:time` of its last change, from Customer.io")
TAGS = Column("tags", "json", 'Its tags; null, or the text "nil", where there are none')
DESCRIPTION = Column("description", "text", "What people wrote about it")

_SENDING = (
    Column("active", "boolean", "Whether it runs"),
    Column("state", "text", "`running`, `draft` or `stopped`"),
    Column("actions", "json", "Its actions: `[{type, id}]`"),
    Column("first_started", "time", "When it was first started"),
    TAGS,
    Column("created_by", "text", "Who made it", personal=True),
    Column("msg_templates", "json", "Templates it sends: `[{type, id}]`"),
    Column("msg_template_ids", "json", "Ids of the templates it sends"),
)
_TRIGGERED = (
    Column("trigger_segment_ids", "json", "Segments that let people in"),
    Column("filter_segment_ids", "json", "Segments people have to be in as well"),
    Column("event_name", "text", "The event that lets people in"),
    Column("frequency", "text", "`once`, `monthly` or `yearly`, of a campaign by date"),
    Column("date_attribute", "text", "The attribute with the date"),
    Column("timezone", "text", "The time zone of the date"),
    Column("use_customer_timezone", "boolean", "Whether each person's own time zone counts"),
    Column("start_hour", "integer", "The hour it begins on the date"),
    Column("start_minutes", "integer", "The minutes to it"),
    Column("object_type_id", "text", "The type of object that lets people in"),
    Column("filter_object_attributes", "json", "Attributes the object has to have"),
    Column("filter_relationship_attributes", "json", "Attributes the relationship has to have"),
    Column("audience", "json", "Whom of those related it reaches"),
    Column("object_attribute_triggers", "json", "Changes of the object that let people in"),
    Column("relationship_attribute_triggers", "json", "Changes of the relationship that let people in"),
    Column("webhook_id", "text", "The webhook that lets people in"),
)
_MESSAGE = (
    DEDUPLICATE,
    NAME,
    TYPE,
    Column("layout", "text", "The layout around the body"),
    Column("body", "text", "What it says"),
    Column("body_amp", "text", "What it says as AMP"),
    Column("body_plain", "text", "What it says as plain text"),
    Column("language", "text", "The language; empty for the default"),
    Column("from", "text", "The sender", personal=True),
    Column("from_id", "integer", "The sender's identity"),
    Column("reply_to", "text", "Where answers go", personal=True),
    Column("reply_to_id", "integer", "The identity that answers go to"),
    Column("preprocessor", "text", "What prepares its styles"),
    Column("recipient", "text", "The template of the recipient"),
    Column("subject", "text", "The subject"),
    Column("bcc", "text", "Who gets a blind copy", personal=True),
    Column("fake_bcc", "boolean", "Whether the copy is a message of its own"),
    Column("preheader_text", "text", "What mail programs show beside the subject"),
    Column("headers", "json", "Headers of its own"),
)
_ACTION = (
    Column("id", "text", "The action; text, as the API sends it"),
    *_MESSAGE,
    CREATED,
    UPDATED,
    Column("sending_state", "text", "`automatic`, `draft` or `off`"),
    Column("parent_action_id", "text", "The action this is a variant of"),
    Column("url", "text", "Where a webhook goes"),
    Column("method", "text", "The HTTP method of a webhook"),
)

CONTENT = (
    Replicated(
        table=Table(
            "campaigns",
            (ID, DEDUPLICATE, NAME, TYPE, DESCRIPTION, CREATED, UPDATED, *_SENDING, *_TRIGGERED),
            key=("id",),
            cursor="updated",
            about="Campaigns: what is sent to people by segment, event, date or relationship.",
        ),
        endpoint="GET /v1/campaigns",
        reading=Listed(AppApi.campaigns, "campaigns"),
        passes=True,
    ),
    Replicated(
        table=Table(
            "campaign_actions",
            (Column("campaign_id", "integer", "The campaign it belongs to"), *_ACTION),
            key=("campaign_id", "id"),
            cursor="updated",
            about="The steps of campaigns: messages, webhooks, and what they say.",
        ),
        endpoint="GET /v1/campaigns/{id}/actions",
        reading=PerParent("campaign_id", Listed(AppApi.campaign_actions, "actions")),
        parent="campaigns",
        passes=True,
        aliases=("campaigns_actions",),
    ),
    Replicated(
        table=Table(
            "broadcasts",
            (ID, DEDUPLICATE, NAME, TYPE, DESCRIPTION, CREATED, UPDATED, *_SENDING),
            key=("id",),
            cursor="updated",
            about="Broadcasts that are triggered through the API.",
        ),
        endpoint="GET /v1/broadcasts",
        reading=Listed(AppApi.broadcasts, "broadcasts"),
        passes=True,
    ),
    Replicated(
        table=Table(
            "broadcast_actions",
            (Column("broadcast_id", "integer", "The broadcast it belongs to"), *_ACTION),
            key=("broadcast_id", "id"),
            cursor="updated",
            about="The steps of broadcasts, and what they say.",
        ),
        endpoint="GET /v1/broadcasts/{id}/actions",
        reading=PerParent("broadcast_id", Listed(AppApi.broadcast_actions, "actions")),
        parent="broadcasts",
        passes=True,
        aliases=("broadcasts_actions",),
    ),
    Replicated(
        table=Table(
            "newsletters",
            (
                ID,
                DEDUPLICATE,
                NAME,
                TYPE,
                Column("content_ids", "json", "Its variants"),
                Column("sent_at", "time", "When it was sent; null for a draft"),
                CREATED,
                UPDATED,
                TAGS,
                Column("recipient_segment_ids", "json", "Segments it goes to"),
                Column("subscription_topic_id", "integer", "The topic people have to be subscribed to"),
            ),
            key=("id",),
            cursor="updated",
            about="Newsletters, sent and drafted.",
        ),
        endpoint="GET /v1/newsletters",
        reading=Listed(AppApi.newsletters, "newsletters", limit=100),
        passes=True,
    ),
    Replicated(
        table=Table(
            "newsletter_variants",
            (
                Column("newsletter_id", "integer", "The newsletter it belongs to"),
                ID,
                *_MESSAGE,
            ),
            key=("newsletter_id", "id"),
            about="The variants of newsletters, by language and A/B test, and what they say.",
        ),
        endpoint="GET /v1/newsletters/{id}/contents",
        reading=PerParent("newsletter_id", Listed(AppApi.newsletter_contents, "contents")),
        parent="newsletters",
        aliases=("newsletter_contents",),
    ),
    Replicated(
        table=Table(
            "newsletter_test_groups",
            (
                Column("newsletter_id", "integer", "The newsletter it belongs to"),
                Column("id", "text", "The group"),
                NAME,
                Column("label", "text", "What people call it"),
                Column("winner", "boolean", "Whether it won the test"),
                Column("content_ids", "json", "Its variants"),
            ),
            key=("newsletter_id", "id"),
            about="The groups of A/B tests of newsletters.",
        ),
        endpoint="GET /v1/newsletters/{id}/test_groups",
        reading=PerParent("newsletter_id", Listed(AppApi.newsletter_test_groups, "test_groups")),
        parent="newsletters",
        optional=True,
    ),
    Replicated(
        table=Table(
            "transactional_messages",
            (
                ID,
                NAME,
                DESCRIPTION,
                Column("send_to_unsubscribed", "boolean", "Whether it reaches who is unsubscribed"),
                Column("link_tracking", "boolean", "Whether clicks are counted"),
                Column("open_tracking", "boolean", "Whether opens are counted"),
                Column("hide_message_body", "boolean", "Whether its text is kept out of Customer.io's pages"),
                Column("queue_drafts", "boolean", "Whether it waits as a draft"),
                CREATED_AT,
                UPDATED_AT,
            ),
            key=("id",),
            cursor="updated_at",
            about="Templates of transactional messages; what was sent of them is in `messages`.",
        ),
        endpoint="GET /v1/transactional",
        reading=Listed(AppApi.transactional_messages, "messages"),
        passes=True,
    ),
    Replicated(
        table=Table(
            "snippets",
            (
                NAME,
                Column("value", "text", "What it stands for"),
                UPDATED_AT,
            ),
            key=("name",),
            cursor="updated_at",
            about="Snippets that messages share.",
        ),
        endpoint="GET /v1/snippets",
        reading=Listed(AppApi.snippets, "snippets"),
        passes=True,
    ),
    Replicated(
        table=Table(
            "collections",
            (
                ID,
                NAME,
                Column("schema", "json", "The keys of its rows"),
                Column("rows", "integer", "How many rows it has"),
                Column("bytes", "integer", "How large it is"),
                CREATED_AT,
                UPDATED_AT,
            ),
            key=("id",),
            about="Collections of data for messages. Read whole: a change of the contents may not move "
            "`updated_at`.",
        ),
        endpoint="GET /v1/collections",
        reading=Listed(AppApi.collections, "collections"),
    ),
    Replicated(
        table=Table(
            "collection_contents",
            (
                Column("collection_id", "integer", "The collection"),
                Column("content", "json", "Its rows"),
            ),
            key=("collection_id",),
            about="What collections contain.",
        ),
        endpoint="GET /v1/collections/{id}/content",
        reading=PerParent("collection_id", Whole(AppApi.collection_content, wrap="content")),
        parent="collections",
        optional=True,
    ),
    Replicated(
        table=Table(
            "subscription_topics",
            (
                ID,
                Column("identifier", "text", "What people's preferences call it, like `topic_4`"),
                NAME,
                DESCRIPTION,
                Column("subscribed_by_default", "boolean", "Whether who said nothing is subscribed"),
            ),
            key=("id",),
            about="Topics that people subscribe to.",
        ),
        endpoint="GET /v1/subscription_topics",
        reading=Listed(AppApi.subscription_topics, "topics"),
        aliases=("topics", "subscription_center"),
    ),
    Replicated(
        table=Table(
            "sender_identities",
            (
                ID,
                DEDUPLICATE,
                NAME,
                Column("email", "text", "The address it sends from", personal=True),
                Column("phone", "text", "The number it sends from", personal=True),
                Column("address", "text", "Name and address as a message shows them", personal=True),
                Column("template_type", "text", "`email` or `phone`"),
                Column("auto_generated", "boolean", "Whether Customer.io made it"),
                Column("hidden", "boolean", "Whether pages hide it"),
            ),
            key=("id",),
            about="Who messages come from, hidden ones included.",
        ),
        endpoint="GET /v1/sender_identities",
        reading=Listed(
            AppApi.sender_identities,
            "sender_identities",
            limit=100,
            variants=({"hidden": False}, {"hidden": True}),
            until_empty=True,
        ),
    ),
)
