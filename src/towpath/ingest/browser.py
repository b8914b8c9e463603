"""What browser SDKs load before they send: the source's configuration, in the two shapes they know."""

from __future__ import annotations

from typing import Any

from .keys import Access

_OPEN: dict[str, Any] = {"__default": {"enabled": True, "integrations": {}}}


def source_config(access: Access) -> dict[str, Any]:
    """Return what @rudderstack/analytics-js v3 needs; it checks source.id, .config and .destinations."""
    quiet = {"enabled": False}
    return {
        "source": {
            "id": access.source,
            "name": access.source,
            "workspaceId": "towpath",
            "enabled": True,
            "config": {"statsCollection": {"errors": quiet, "metrics": quiet}},
            "destinations": [],
            "dataplanes": {},
        },
        "consentManagementMetadata": {},
    }


def project_settings(write_key: str, scheme: str, host: str) -> dict[str, Any]:
    """Return what @segment/analytics-next needs: no integration but ours, and every event planned."""
    sender = {
        "apiKey": write_key,
        "apiHost": f"{host}/v1",
        "protocol": scheme,
        "unbundledIntegrations": [],
        "addBundledMetadata": False,
        "maybeBundledConfigIds": {},
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    }
    return {
        "integrations": {"Segment.io": sender},
        "plan": {"track": _OPEN, "identify": _OPEN, "group": _OPEN},
        "edgeFunction": {},
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "analyticsNextEnabled": True,
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }
