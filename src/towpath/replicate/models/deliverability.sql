-- How well e-mail arrives, by week and the recipients' domain: bounces, spam, unsubscribes, and new suppressions.
-- reads deliveries
-- reads esp_suppressions?: suppression_type text!, email text!, created time!
with sent as (
    select
        _workspace,
        week,
        recipient_domain as domain,
        count(sent_at) as sent,
        count(delivered_at) as delivered,
        count(deferred_at) as deferred,
        count(bounced_at) as bounced,
        count(spammed_at) as spammed,
        count(coalesce(unsubscribed_at, topic_unsubscribed_at)) as unsubscribed,
        count(coalesce(dropped_at, suppressed_at)) as dropped,
        count(coalesce(failed_at, undeliverable_at)) as failed,
        0 as suppressed,
        0 as lifted
    from {deliveries} as delivery
    where channel = 'email'
    group by _workspace, week, recipient_domain
),
suppressed as (
    select
        _workspace,
        {week created} as week,
        {domain email} as domain,
        count(distinct email) as suppressed,
        count(distinct email) - count(distinct case when _deleted_at is null then email end) as lifted
    from {esp_suppressions} as suppression
    where created is not null
    group by _workspace, {week created}, {domain email}
),
both_of_them as (
    select * from sent
    union all
    select _workspace, week, domain, 0, 0, 0, 0, 0, 0, 0, 0, suppressed, lifted from suppressed
)
select
    _workspace,  -- The account the rows came from: one for each workspace.
    week,  -- The week, by its Monday (UTC), in which messages were sent or addresses suppressed.
    domain,  -- What follows the @ of the recipients' addresses; none where that is not known, as when it is hashed.
    {total sent} as sent,  -- E-mails that were sent.
    {total delivered} as delivered,  -- Taken by the other side.
    {total deferred} as deferred,  -- Put off by the other side at least once.
    {total bounced} as bounced,  -- That came back.
    {total spammed} as spammed,  -- Called spam.
    {total unsubscribed} as unsubscribed,  -- Through which persons unsubscribed, from all or from a topic.
    {total dropped} as dropped,  -- Not sent, since the address or person is suppressed.
    {total failed} as failed,  -- Failed, or could not be made.
    {total suppressed} as suppressed,  -- Addresses the e-mail provider put on a suppression list in that week.
    {total lifted} as lifted,  -- Those of them that are off it again.
    {rate sum(delivered) sum(sent)} as delivery_rate,  -- delivered / sent.
    {rate sum(bounced) sum(sent)} as bounce_rate,  -- bounced / sent; above 2 % providers grow wary.
    {rate sum(spammed) sum(delivered)} as spam_rate,  -- spammed / delivered; above 0.1 % providers grow wary.
    {rate sum(unsubscribed) sum(delivered)} as unsubscribe_rate  -- unsubscribed / delivered.
from both_of_them
group by _workspace, week, domain
