-- How many persons joined and left each segment, day by day, as towpath saw it: on the first day it looked, everybody there joined. Of those who left only the day of leaving is known, and not even that with `deletes: remove`.
-- reads segment_memberships: segment_id integer!, cio_id text!
-- reads segment_days?: segment_id integer!, day date!, members integer!
-- reads segments?: id integer!, name text
with change as (
    select _workspace, segment_id, {day _loaded_at} as day, 1 as joined, 0 as departed
    from {segment_memberships} as member
    where _deleted_at is null
    union all
    select _workspace, segment_id, {day _deleted_at} as day, 0 as joined, 1 as departed
    from {segment_memberships} as member
    where _deleted_at is not null
    union all
    select _workspace, segment_id, day, 0 as joined, 0 as departed
    from {segment_days} as counted
),
daily as (
    select _workspace, segment_id, day, {total joined} as joined, {total departed} as departed
    from change
    group by _workspace, segment_id, day
)
select
    daily._workspace,  -- The account the rows came from: one for each workspace.
    daily.segment_id,  -- The segment.
    segment.name as segment_name,  -- Its name.
    daily.day,  -- The day (UTC) on which a run saw the change.
    daily.joined,  -- Persons who were new in it or back, and still are in it; or whose ids changed.
    daily.departed,  -- Persons that were no longer in it.
    cast(
        sum(daily.joined - daily.departed)
            over (partition by daily._workspace, daily.segment_id order by daily.day)
        + sum(daily.departed) over (partition by daily._workspace, daily.segment_id) as bigint
    ) as members,  -- Persons in it at the end of that day, counted back from now; who left since is taken to have been in it before.
    counted.members as counted  -- Persons in it that day as Customer.io counts them, where `segment_days` is replicated.
from daily
left join {segment_days} as counted
    on counted._workspace = daily._workspace
    and counted.segment_id = daily.segment_id
    and counted.day = daily.day
left join {segments} as segment on segment._workspace = daily._workspace and segment.id = daily.segment_id
