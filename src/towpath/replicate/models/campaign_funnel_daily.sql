-- What became of each campaign's messages, by the day they were sent: a late open counts to the day of its message.
-- reads deliveries
select
    _workspace,  -- The account the rows came from: one for each workspace.
    campaign_id,  -- The campaign.
    max(campaign_name) as campaign_name,  -- Its name.
    channel,  -- `email`, `sms`, `push` …: rates of different channels say different things.
    sent_on as day,  -- The day (UTC).
    {counts}
from {deliveries} as delivery
where campaign_id is not null
group by _workspace, campaign_id, channel, sent_on
