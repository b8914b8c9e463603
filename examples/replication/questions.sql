-- Which campaigns are read, month by month?
select campaign_name, date_trunc('month', day) as month, sum(sent) as sent,
       sum(opened) * 1.0 / nullif(sum(delivered), 0) as open_rate
from campaign_funnel_daily
where channel = 'email'
group by campaign_name, month
order by month, sent desc;

-- Whose mail bounces?
select week, domain, sent, bounced, spammed, suppressed
from deliverability
where bounced + spammed + suppressed > 0
order by week, bounced desc;

-- Who reads everything, and who nothing?
select person, email, sent_90_days, opened_90_days, last_opened_at
from person_engagement
where sent_90_days > 0
order by opened_90_days desc
limit 20;

-- Did one variant of a newsletter do better than chance?
select newsletter_name, variant_name, variants, delivered, click_rate, click_score
from newsletter_variants_compared
order by abs(click_score) desc nulls last, delivered desc
limit 20;
