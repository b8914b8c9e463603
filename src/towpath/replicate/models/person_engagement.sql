-- How each person answers to messages: counts, of ever and of late, and when last. Persons who are gone, or forgotten, are left out.
-- reads deliveries
-- reads customers?: cio_id text!, id text, email text, unsubscribed boolean
with person as (
    select
        _workspace,
        cio_id,
        max(id) as id,
        max(email) as email,
        bool_or(unsubscribed) as unsubscribed,
        bool_and(_deleted_at is not null) as gone
    from {customers} as customer
    group by _workspace, cio_id
),
named as (
    select _workspace, id, max(cio_id) as cio_id
    from person
    where id is not null and id <> '' and not gone
    group by _workspace, id
),
addressed as (
    select
        delivery._workspace,
        coalesce(delivery.cio_id, named.cio_id, delivery.customer_id) as person,
        delivery.customer_id,
        sent_at,
        delivered_at,
        opened_at,
        clicked_at,
        converted_at,
        bounced_at,
        coalesce(unsubscribed_at, topic_unsubscribed_at) as unsubscribed_at
    from {deliveries} as delivery
    left join named
        on delivery.cio_id is null
        and named._workspace = delivery._workspace
        and named.id = delivery.customer_id
    where not delivery.forgotten
),
told as (
    select
        _workspace,
        person,
        max(customer_id) as customer_id,
        count(sent_at) as sent,
        count(delivered_at) as delivered,
        count(opened_at) as opened,
        count(clicked_at) as clicked,
        count(converted_at) as converted,
        count(bounced_at) as bounced,
        count(unsubscribed_at) as unsubscribes,
        min(sent_at) as first_sent_at,
        max(sent_at) as last_sent_at,
        max(opened_at) as last_opened_at,
        max(clicked_at) as last_clicked_at,
        max(converted_at) as last_converted_at,
        {lately sent 30},
        {lately opened 30},
        {lately clicked 30},
        {lately sent 90},
        {lately opened 90},
        {lately clicked 90}
    from addressed
    where person is not null
    group by _workspace, person
)
select
    coalesce(told._workspace, person._workspace) as _workspace,  -- The account the rows came from: one for each workspace.
    coalesce(told.person, person.cio_id) as person,  -- The person: Customer.io's id where it is known, else yours.
    coalesce(person.id, told.customer_id) as customer_id,  -- The person's id of yours.
    person.email,  -- The e-mail address, where `customers` is replicated.
    person.unsubscribed,  -- Whether the person is unsubscribed from everything now.
    coalesce(told.sent, 0) as sent,  -- Messages that were sent.
    coalesce(told.delivered, 0) as delivered,  -- Messages that the other side took.
    coalesce(told.opened, 0) as opened,  -- Messages that were opened.
    coalesce(told.clicked, 0) as clicked,  -- Messages with a link followed.
    coalesce(told.converted, 0) as converted,  -- Messages after which the person did what they were for.
    coalesce(told.bounced, 0) as bounced,  -- Messages that came back.
    coalesce(told.unsubscribes, 0) as unsubscribes,  -- Messages through which the person unsubscribed, from all or from a topic.
    told.first_sent_at,  -- When the first was sent.
    told.last_sent_at,  -- When the last was sent.
    told.last_opened_at,  -- When one was last opened.
    told.last_clicked_at,  -- When a link was last followed.
    told.last_converted_at,  -- When the person last did what a message was for.
    coalesce(told.sent_30_days, 0) as sent_30_days,  -- Sent in the 30 days before now.
    coalesce(told.opened_30_days, 0) as opened_30_days,  -- Opened in the 30 days before now, whenever sent.
    coalesce(told.clicked_30_days, 0) as clicked_30_days,  -- Clicked in the 30 days before now, whenever sent.
    coalesce(told.sent_90_days, 0) as sent_90_days,  -- Sent in the 90 days before now.
    coalesce(told.opened_90_days, 0) as opened_90_days,  -- Opened in the 90 days before now, whenever sent.
    coalesce(told.clicked_90_days, 0) as clicked_90_days,  -- Clicked in the 90 days before now, whenever sent.
    {rate told.opened told.delivered} as open_rate,  -- opened / delivered, of ever.
    {rate told.clicked told.delivered} as click_rate  -- clicked / delivered, of ever.
from told
full join person on person._workspace = told._workspace and person.cio_id = told.person
where person.gone is null or not person.gone
