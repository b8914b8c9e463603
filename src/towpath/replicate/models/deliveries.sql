-- One row per message to one person, with a moment for each thing that became of it and the name of what sent it.
-- reads messages: id text!, created time!, metrics json!, type text, cio_id text, customer_id text, person_id text, recipient text, subject text, campaign_id integer, action_id integer, newsletter_id integer, content_id integer, broadcast_id integer, transactional_message_id integer, failure_message text, forgotten boolean
-- reads message_events?: delivery_id text!, metric text!, at time!, machine boolean, prefetched boolean
-- reads campaigns?: id integer!, name text
-- reads newsletters?: id integer!, name text
-- reads broadcasts?: id integer!, name text
-- reads transactional_messages?: id integer!, name text
with reported as (
    -- Of any workspace: a report is told by its source, and a delivery's id is Customer.io's alone.
    select
        delivery_id,
        {reported drafted},
        {reported attempted},
        {reported sent},
        {reported delivered},
        {reported deferred},
        {reported opened},
        {by_person opened prefetched},
        {by_machine opened prefetched},
        {reported clicked},
        {by_person clicked machine},
        {by_machine clicked machine},
        {reported converted},
        {reported replied},
        {reported unsubscribed},
        {reported bounced},
        {reported dropped},
        {reported failed},
        {reported undeliverable},
        {reported spammed}
    from {message_events} as event
    where delivery_id is not null
    group by delivery_id
),
told as (
    select
        m.*,
        {latest drafted} as drafted_at,
        {latest attempted} as attempted_at,
        {latest sent} as sent_at,
        {latest delivered} as delivered_at,
        {latest deferred} as deferred_at,
        {latest opened} as opened_at,
        {latest human_opened} as human_opened_at,
        {latest prefetch_opened} as prefetch_opened_at,
        {latest clicked} as clicked_at,
        {latest human_clicked} as human_clicked_at,
        {latest prefetch_clicked} as prefetch_clicked_at,
        {latest converted} as converted_at,
        {latest replied} as replied_at,
        {latest unsubscribed} as unsubscribed_at,
        {metric topic_unsubscribed} as topic_unsubscribed_at,
        {latest bounced} as bounced_at,
        {latest dropped} as dropped_at,
        {metric suppressed} as suppressed_at,
        {latest failed} as failed_at,
        {latest undeliverable} as undeliverable_at,
        {latest spammed} as spammed_at
    from {messages} as m
    left join reported on reported.delivery_id = m.id
    where m._deleted_at is null
)
select
    told._workspace,  -- The account the row came from: one for each workspace.
    told.id as delivery_id,  -- Customer.io's id of this message to this person.
    case told.type when 'twilio' then 'sms' else told.type end as channel,  -- `email`, `sms`, `push`, `in_app`, `webhook`, `slack`, `whatsapp` …
    case
        when told.newsletter_id is not null then 'newsletter'
        when told.broadcast_id is not null then 'broadcast'
        when told.transactional_message_id is not null then 'transactional'
        when told.campaign_id is not null then 'campaign'
        else 'other'
    end as source,  -- What sent it: `campaign`, `newsletter`, `broadcast`, `transactional` or `other`.
    coalesce(told.newsletter_id, told.broadcast_id, told.transactional_message_id, told.campaign_id) as source_id,  -- The id of what sent it.
    case
        when told.newsletter_id is not null then newsletter.name
        when told.broadcast_id is not null then broadcast.name
        when told.transactional_message_id is not null then transactional.name
        else campaign.name
    end as source_name,  -- The name of what sent it, also when it was deleted since.
    told.campaign_id,  -- The campaign, if one sent it.
    campaign.name as campaign_name,  -- The campaign's name.
    told.action_id,  -- The step of the campaign or broadcast.
    told.newsletter_id,  -- The newsletter, if one sent it.
    newsletter.name as newsletter_name,  -- The newsletter's name.
    told.content_id,  -- The newsletter's variant or language.
    told.broadcast_id,  -- The API-triggered broadcast, if one sent it.
    broadcast.name as broadcast_name,  -- The broadcast's name.
    told.transactional_message_id,  -- The transactional message, if it is one.
    transactional.name as transactional_name,  -- The transactional message's name.
    told.cio_id,  -- The person, by the id that Customer.io gives.
    coalesce(told.customer_id, told.person_id) as customer_id,  -- The person, by your id; none for people known by e-mail only.
    told.recipient,  -- The address or device it went to.
    {domain told.recipient} as recipient_domain,  -- What follows the @ of an e-mail address, in small letters.
    told.subject,  -- The subject.
    told.created as created_at,  -- When it was made.
    {day coalesce(told.sent_at,told.created)} as sent_on,  -- The day (UTC) it was sent; where it was not, made.
    {week coalesce(told.sent_at,told.created)} as week,  -- The Monday (UTC) of that day's week.
    told.drafted_at,  -- When it was put among the drafts.
    told.attempted_at,  -- When sending was last tried.
    told.sent_at,  -- When it left Customer.io.
    told.delivered_at,  -- When the other side took it.
    told.deferred_at,  -- When the other side asked to wait.
    told.opened_at,  -- When it was opened, by a person or a machine.
    told.human_opened_at,  -- When a person opened it, as Customer.io tells them from machines.
    told.prefetch_opened_at,  -- When a machine opened it, like a mail privacy proxy.
    told.clicked_at,  -- When a link was followed, by a person or a machine.
    told.human_clicked_at,  -- When a person followed a link.
    told.prefetch_clicked_at,  -- When a machine followed a link, like a scanner.
    told.converted_at,  -- When the person did what the message was for.
    told.replied_at,  -- When the person answered.
    told.unsubscribed_at,  -- When the person unsubscribed through it.
    told.topic_unsubscribed_at,  -- When the person left a subscription topic through it.
    told.bounced_at,  -- When it came back.
    told.dropped_at,  -- When it was not sent since the address is suppressed.
    told.suppressed_at,  -- When it was held back since the person is suppressed.
    told.failed_at,  -- When sending failed.
    told.undeliverable_at,  -- When it could not be made or was not allowed to be sent.
    told.spammed_at,  -- When it was called spam.
    told.failure_message,  -- Why it failed or bounced.
    coalesce(told.forgotten, false) as forgotten  -- Whether Customer.io has forgotten whom it went to.
from told
left join {campaigns} as campaign on campaign._workspace = told._workspace and campaign.id = told.campaign_id
left join {newsletters} as newsletter on newsletter._workspace = told._workspace and newsletter.id = told.newsletter_id
left join {broadcasts} as broadcast on broadcast._workspace = told._workspace and broadcast.id = told.broadcast_id
left join {transactional_messages} as transactional
    on transactional._workspace = told._workspace and transactional.id = told.transactional_message_id
