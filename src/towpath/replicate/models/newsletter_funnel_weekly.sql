-- What became of each newsletter, by the week its messages were sent: a late open counts to the week of its message.
-- reads deliveries
select
    _workspace,  -- The account the rows came from: one for each workspace.
    newsletter_id,  -- The newsletter.
    max(newsletter_name) as newsletter_name,  -- Its name.
    channel,  -- `email`, `sms`, `push` …
    week,  -- The week, by its Monday (UTC).
    {counts}
from {deliveries} as delivery
where newsletter_id is not null
group by _workspace, newsletter_id, channel, week
