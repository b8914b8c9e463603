"""What browser and mobile SDKs load before they send: the source's configuration, in two shapes."""

from __future__ import annotations

from typing import Any

from .keys import Access

_OPEN: dict[str, Any] = {"__default": {"enabled": True, "integrations": {}}}


def source_config(write_key: str, access: Access) -> dict[str, Any]:
    """Return what RudderStack's SDKs need; no destination, so that none is fed from the device (E008).

    @rudderstack/analytics-js v3 checks source.id, .config and .destinations. rudder-sdk-kotlin and
    rudder-sdk-swift read nothing where one of id, name, writeKey, enabled, workspaceId and updatedAt is
    missing, or `providers`. None of them compares updatedAt, and a source has no such moment.
    """
    quiet = {"enabled": False}
    return {
        "source": {
            "id": access.source,
            "name": access.source,
            "writeKey": write_key,
            "workspaceId": "towpath",
            "enabled": True,
            "updatedAt": "1970-01-01T00:00:00.000Z",
            "config": {"statsCollection": {"errors": quiet, "metrics": quiet}},
            "destinations": [],
            "dataplanes": {},
        },
        "consentManagementMetadata": {"providers": []},
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
