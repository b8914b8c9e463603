    count(sent_at) as sent,  -- Messages that were sent.
    count(delivered_at) as delivered,  -- Of these and others of the row: taken by the other side.
    count(opened_at) as opened,  -- Opened, by persons or machines, whenever that was.
    count(human_opened_at) as human_opened,  -- Opened by persons, where Customer.io tells.
    count(clicked_at) as clicked,  -- With a link followed, by persons or machines.
    count(human_clicked_at) as human_clicked,  -- With a link followed by persons, where Customer.io tells.
    count(converted_at) as converted,  -- After which the person did what the message was for.
    count(coalesce(unsubscribed_at, topic_unsubscribed_at)) as unsubscribed,  -- Through which persons unsubscribed, from all or from a topic.
    count(bounced_at) as bounced,  -- That came back.
    count(spammed_at) as spammed,  -- That were called spam.
    count(coalesce(failed_at, undeliverable_at, dropped_at, suppressed_at)) as unsent,  -- Failed, undeliverable, dropped or suppressed.
    {rate count(delivered_at) count(sent_at)} as delivery_rate,  -- delivered / sent; none where nothing was sent.
    {rate count(opened_at) count(delivered_at)} as open_rate,  -- opened / delivered.
    {rate count(clicked_at) count(delivered_at)} as click_rate,  -- clicked / delivered.
    {rate count(converted_at) count(delivered_at)} as conversion_rate,  -- converted / delivered.
    {rate count(coalesce(unsubscribed_at,topic_unsubscribed_at)) count(delivered_at)} as unsubscribe_rate  -- unsubscribed / delivered.
