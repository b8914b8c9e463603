-- What became of the messages of whatever sends, step by step and week by week; a late open counts to the week of its message.
-- reads deliveries
select
    _workspace,  -- The account the rows came from: one for each workspace.
    source,  -- `campaign`, `newsletter`, `broadcast`, `transactional` or `other`.
    source_id,  -- The id of what sent them.
    max(source_name) as source_name,  -- Its name.
    action_id,  -- The step of a campaign or broadcast.
    channel,  -- `email`, `sms`, `push` …
    week,  -- The week, by its Monday (UTC).
    {counts}
from {deliveries} as delivery
group by _workspace, source, source_id, action_id, channel, week
