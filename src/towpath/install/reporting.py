"""Telling Customer.io to report to this server: its reporting webhook, registered once, not twice (C106)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from ..errors import TowpathError
from ..http import Undelivered
from ..vendors.customerio import AppApi

UNREGISTERED = "E2411"
Registration: TypeAlias = Literal["registered, switched off", "registered", "switched on", "as it was"]

_METRICS = {
    "email": "drafted attempted sent delivered opened clicked converted unsubscribed bounced dropped "
    "deferred spammed failed undeliverable",
    "push": "drafted attempted sent delivered opened clicked converted bounced dropped failed undeliverable",
    "in_app": "drafted attempted sent opened clicked converted failed undeliverable",
    "sms": "drafted attempted sent delivered clicked converted bounced dropped failed undeliverable replied",
    "slack": "drafted attempted sent clicked converted failed undeliverable",
    "webhook": "drafted attempted sent clicked converted failed undeliverable",
    "customer": "subscribed unsubscribed subscription_preferences_changed",
}
EVENTS = tuple(f"{kind}_{metric}" for kind, metrics in _METRICS.items() for metric in metrics.split())
"""What is subscribed to, as Customer.io's App API names it."""


async def register(app: AppApi, endpoint: str, *, signed: bool) -> Registration:
    """See to it that the workspace reports to an address, and say what was done for that.

    The signing key is only shown by Customer.io's own pages, once the webhook is there. Without it
    (`signed`) nothing could be taken in, and what is refused holds back everything behind it: so it is
    registered switched off, and switched on when the key is here. What people changed of it stays. Raises
    `TowpathError`.
    """
    try:
        known = await _known(app, endpoint)
        if known is None:
            await app.create_reporting_webhook(_webhook(endpoint, disabled=not signed))
            return "registered" if signed else "registered, switched off"
        if not (signed and known.get("disabled")):
            return "as it was"
        await app.update_reporting_webhook(known["id"], {**known, "disabled": False})
    except Undelivered as error:
        raise _failed(getattr(error.outcome, "reason", "")) from error
    return "switched on"


async def _known(app: AppApi, endpoint: str) -> dict[str, Any] | None:
    said = (await app.reporting_webhooks()).json()
    webhooks = (said.get("reporting_webhooks") if isinstance(said, dict) else None) or []
    same = (each for each in webhooks if isinstance(each, dict) and each.get("endpoint") == endpoint)
    return next(same, None)


def _webhook(endpoint: str, *, disabled: bool) -> dict[str, Any]:
    """Every delivery and no content: who was written to is enough, what was written is not needed."""
    return {
        "name": "towpath",
        "endpoint": endpoint,
        "disabled": disabled,
        "full_resolution": True,
        "with_content": False,
        "events": list(EVENTS),
    }


def _failed(why: str) -> TowpathError:
    return TowpathError(
        "Customer.io did not take the reporting webhook",
        code=UNREGISTERED,
        why=why,
        fix="run it again with --replace, or add the webhook by hand: Integrations, Reporting Webhooks",
        data="The configuration was written; only the webhook is missing.",
    )
