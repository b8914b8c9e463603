-- The variants (A/B) or languages of each newsletter side by side, and whether what differs is more than chance.
-- reads deliveries
-- reads newsletter_variants?: newsletter_id integer!, id integer!, name text, subject text, language text
with variant as (
    select
        _workspace,
        newsletter_id,
        content_id,
        max(newsletter_name) as newsletter_name,
        max(channel) as channel,
        {counts}
    from {deliveries} as delivery
    where newsletter_id is not null
    group by _workspace, newsletter_id, content_id
),
beside as (
    select
        variant.*,
        count(*) over newsletter as variants,
        sum(sent) over newsletter as all_sent,
        sum(delivered) over newsletter as all_delivered,
        sum(opened) over newsletter as all_opened,
        sum(clicked) over newsletter as all_clicked,
        sum(converted) over newsletter as all_converted
    from variant
    window newsletter as (partition by _workspace, newsletter_id)
)
select
    beside._workspace,  -- The account the rows came from: one for each workspace.
    beside.newsletter_id,  -- The newsletter.
    beside.newsletter_name,  -- Its name.
    beside.content_id,  -- The variant or language.
    content.name as variant_name,  -- Its name.
    content.language,  -- Its language.
    content.subject,  -- Its subject.
    beside.channel,  -- `email`, `sms`, `push` …
    beside.variants,  -- How many of them were sent.
    {rate beside.sent beside.all_sent} as share,  -- This one's part of what was sent.
    beside.sent,  -- Messages that were sent.
    beside.delivered,  -- Taken by the other side.
    beside.opened,  -- Opened, by persons or machines.
    beside.human_opened,  -- Opened by persons, where Customer.io tells.
    beside.clicked,  -- With a link followed, by persons or machines.
    beside.human_clicked,  -- With a link followed by persons, where Customer.io tells.
    beside.converted,  -- After which the person did what the message was for.
    beside.unsubscribed,  -- Through which persons unsubscribed.
    beside.bounced,  -- That came back.
    beside.spammed,  -- Called spam.
    beside.open_rate,  -- opened / delivered.
    beside.click_rate,  -- clicked / delivered.
    beside.conversion_rate,  -- converted / delivered.
    beside.unsubscribe_rate,  -- unsubscribed / delivered.
    {score opened} as open_score,  -- How far this one's open_rate lies from that of the others together, in standard errors: beyond 1.96 or -1.96 chance alone does it once in 20 times.
    {score clicked} as click_score,  -- The same of click_rate.
    {score converted} as conversion_score  -- The same of conversion_rate.
from beside
left join {newsletter_variants} as content
    on content._workspace = beside._workspace
    and content.newsletter_id = beside.newsletter_id
    and content.id = beside.content_id
