-- One row for each time somebody was lost: unsubscribed, bounced, called it spam, or was suppressed; with what and why.
-- reads deliveries
-- reads esp_suppressions?: suppression_type text!, email text!, created time!, reason text
with lost as (
    select
        delivery.*,
        kind.kind,
        case kind.kind
            when 'unsubscribed' then unsubscribed_at
            when 'topic_unsubscribed' then topic_unsubscribed_at
            when 'bounced' then bounced_at
            when 'spammed' then spammed_at
            when 'dropped' then dropped_at
            when 'suppressed' then suppressed_at
            when 'failed' then failed_at
            when 'undeliverable' then undeliverable_at
        end as lost_at
    from {deliveries} as delivery
    cross join (
        values
            ('unsubscribed'), ('topic_unsubscribed'), ('bounced'), ('spammed'),
            ('dropped'), ('suppressed'), ('failed'), ('undeliverable')
    ) as kind (kind)
),
listed as (
    -- An address may be on the same list for several of your sending domains.
    select distinct _workspace, suppression_type, email, created, reason
    from {esp_suppressions} as suppression
    where _deleted_at is null and created is not null
),
every as (
    select
        _workspace, kind, lost_at, delivery_id, channel, source, source_id, source_name, action_id,
        cio_id, customer_id, recipient, recipient_domain, failure_message as reason
    from lost
    where lost_at is not null
    union all
    select
        _workspace, 'provider_' || suppression_type, created, null, 'email', null, null, null, null,
        null, null, email, {domain email}, reason
    from listed
)
select
    _workspace,  -- The account the row came from: one for each workspace.
    kind,  -- `unsubscribed`, `topic_unsubscribed`, `bounced`, `spammed`, `dropped`, `suppressed`, `failed`, `undeliverable`; of the e-mail provider's lists `provider_bounces`, `provider_blocks` …
    lost_at,  -- When.
    {day lost_at} as day,  -- That day (UTC).
    {week lost_at} as week,  -- The Monday (UTC) of its week.
    delivery_id,  -- The message; none for what the e-mail provider's lists say.
    channel,  -- `email`, `sms`, `push` …
    source,  -- `campaign`, `newsletter`, `broadcast`, `transactional` or `other`.
    source_id,  -- The id of what sent it.
    source_name,  -- Its name.
    action_id,  -- The step of a campaign or broadcast.
    cio_id,  -- The person, by the id that Customer.io gives.
    customer_id,  -- The person, by your id.
    recipient,  -- The address or device.
    recipient_domain,  -- What follows the @ of an e-mail address, in small letters.
    reason  -- Why, as the other side put it.
from every
