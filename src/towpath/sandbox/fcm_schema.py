"""The JSON that FCM v1 takes: every field of a message and its type, strict as Google's parser is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from .fcm_errors import Violation, malformed

Violations: TypeAlias = list[Violation]
Read: TypeAlias = Callable[[Any, str, Violations], Any]
"""Takes a value and its path, notes what is wrong with it, returns it with the names of the proto."""

_FCM = "type.googleapis.com/google.firebase.fcm.v1."
_DURATION = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s")
TARGETS = ("fid", "token", "topic", "condition")
"""The fields of which a message has exactly one."""

_decode = msgspec.json.Decoder().decode


def parsed(body: bytes) -> dict[str, Any]:
    """Read a request: its fields by the names of the proto. Raises `Refusal` that names every breach."""
    try:
        document = _decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"Invalid JSON payload received. Unexpected token. {error}"
        raise malformed([("", said)]) from None
    found: Violations = []
    request = _REQUEST(document, "", found)
    if found:
        raise malformed(found)
    fields: dict[str, Any] = request
    return fields


# -- scalars -------------------------------------------------------------------------------------------


def _wrong(path: str, kind: str, value: Any) -> Violation:
    """Say in Google's words that a value is not of its type."""
    parent, _, name = path.rpartition(".")
    if isinstance(value, list):
        return parent, _unknown(name, parent, "Proto field is not repeating, cannot start list.")
    shown = "Starting an object on a scalar field" if isinstance(value, dict) else _encoded(value)
    return path, f"Invalid value at '{path}' ({kind}), {shown}"


def _unknown(name: str, parent: str, why: str) -> str:
    place = f" at '{parent}'" if parent else ""
    return f'Invalid JSON payload received. Unknown name "{name}"{place}: {why}'


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _string(value: Any, path: str, found: Violations) -> Any:
    if not isinstance(value, str):
        found.append(_wrong(path, "TYPE_STRING", value))
    return value


def _boolean(value: Any, path: str, found: Violations) -> Any:
    if not isinstance(value, bool):
        found.append(_wrong(path, "TYPE_BOOL", value))
    return value


def _integer(value: Any, path: str, found: Violations) -> Any:
    """Read an int32, which may be written as a string or with zeros behind the point."""
    written = isinstance(value, str) and re.fullmatch(r"-?\d{1,10}", value)
    number = int(value) if written or (isinstance(value, float) and value.is_integer()) else value
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**31) <= number < 2**31:
        found.append(_wrong(path, "TYPE_INT32", value))
    return number


def _float(value: Any, path: str, found: Violations) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        found.append(_wrong(path, "TYPE_FLOAT", value))
    return value


def _duration(value: Any, path: str, found: Violations) -> Any:
    """Read a duration as seconds."""
    kind = "type.googleapis.com/google.protobuf.Duration"
    if not isinstance(value, str):
        found.append(_wrong(path, kind, value))
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        why = "duration must end with 's'" if not value.endswith("s") else "not a number of seconds"
        said = f"({kind}), Field '{_camel(path.rpartition('.')[2])}', Illegal duration format; {why}"
        found.append((path, f"Invalid value at '{path}' {said}"))
        return value
    return float(value[:-1])


def _timestamp(value: Any, path: str, found: Violations) -> Any:
    kind = "type.googleapis.com/google.protobuf.Timestamp"
    if not isinstance(value, str):
        found.append(_wrong(path, kind, value))
        return value
    try:
        aware = datetime.fromisoformat(value).tzinfo is not None and "T" in value
    except ValueError:
        aware = False
    if not aware:
        said = f"({kind}), Field '{_camel(path.rpartition('.')[2])}', Invalid time format: {value}"
        found.append((path, f"Invalid value at '{path}' {said}"))
    return value


def _enum(kind: str, *names: str) -> Read:
    """Read an enum: by name in any case (Google's own clients write lower), or by number."""

    def read(value: Any, path: str, found: Violations) -> Any:
        if isinstance(value, str) and value.upper() in names:
            return value.upper()
        if not isinstance(value, bool) and isinstance(value, int):
            return value
        found.append(_wrong(path, _FCM + kind, value))
        return value

    return read


# -- composites ----------------------------------------------------------------------------------------


def _strings(value: Any, path: str, found: Violations) -> Any:
    """Read a map of strings; Google names its entries by number."""
    if not isinstance(value, dict):
        found.append(_wrong(path, "Map", value))
        return {}
    for index, held in enumerate(value.values()):
        if not isinstance(held, str):
            place = f"{path}[{index}].value"
            if isinstance(held, list):
                found.append(
                    (place, f"Invalid value at '{place}' (Map), Cannot have repeated items in a map.")
                )
            else:
                found.append(_wrong(place, "TYPE_STRING", held))
    return value


def _free(value: Any, path: str, found: Violations) -> Any:
    """Read a JSON object of any content."""
    if not isinstance(value, dict):
        found.append(_wrong(path, "type.googleapis.com/google.protobuf.Struct", value))
        return {}
    return value


def _repeated(item: Read) -> Read:
    def read(value: Any, path: str, found: Violations) -> Any:
        if not isinstance(value, list):
            return [item(value, f"{path}[0]", found)]
        return [item(held, f"{path}[{index}]", found) for index, held in enumerate(value)]

    return read


def _message(kind: str, fields: Mapping[str, Read], oneof: tuple[str, ...] = ()) -> Read:
    """Read an object whose fields are known, by their proto names or in lowerCamelCase; null is absent."""
    known = {_camel(name): (name, inner) for name, inner in fields.items()}
    known |= {name: (name, inner) for name, inner in fields.items()}

    def read(value: Any, path: str, found: Violations) -> Any:
        if not isinstance(value, dict):
            found.append(_wrong(path, _FCM + kind, value) if path else _rootless(value))
            return {}
        taken: dict[str, Any] = {}
        for key, held in value.items():
            entry = known.get(key)
            if entry is None:
                found.append((path, _unknown(key, path, "Cannot find field.")))
            elif held is not None:
                name, inner = entry
                taken[name] = inner(held, f"{path}.{name}" if path else name, found)
        _check_oneof(oneof, taken, path, found)
        return taken

    return read


def _check_oneof(oneof: tuple[str, ...], taken: Mapping[str, Any], path: str, found: Violations) -> None:
    for second in [name for name in taken if name in oneof][1:]:
        said = f"oneof field 'target' is already set. Cannot set '{_camel(second)}'"
        found.append((path, f"Invalid value at '{path}' (oneof), {said}"))


def _rootless(value: Any) -> Violation:
    return "", _unknown("", "", "Root element must be a message.")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


# -- the message ---------------------------------------------------------------------------------------


def _all(read: Read, *names: str) -> dict[str, Read]:
    return dict.fromkeys(names, read)


_LABEL = {"analytics_label": _string}
_PRIORITIES = ("UNSPECIFIED", "MIN", "LOW", "DEFAULT", "HIGH", "MAX")
_COLOR = _message("Color", _all(_float, "red", "green", "blue", "alpha"))
_LIGHTS = {"color": _COLOR, **_all(_duration, "light_on_duration", "light_off_duration")}
_ANDROID_NOTIFICATION = {
    **_all(_string, "title", "body", "icon", "color", "sound", "tag", "click_action", "ticker"),
    **_all(_string, "body_loc_key", "title_loc_key", "channel_id", "image"),
    **_all(_repeated(_string), "body_loc_args", "title_loc_args"),
    **_all(_boolean, "sticky", "local_only", "default_sound"),
    **_all(_boolean, "default_vibrate_timings", "default_light_settings"),
    "event_time": _timestamp,
    "notification_priority": _enum(
        "AndroidNotification.NotificationPriority", *(f"PRIORITY_{name}" for name in _PRIORITIES)
    ),
    "vibrate_timings": _repeated(_duration),
    "visibility": _enum(
        "AndroidNotification.Visibility", "VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"
    ),
    "notification_count": _integer,
    "light_settings": _message("LightSettings", _LIGHTS),
    "proxy": _enum("AndroidNotification.Proxy", "PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
}
_ANDROID = {
    **_all(_string, "collapse_key", "restricted_package_name"),
    **_all(_boolean, "direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"),
    "priority": _enum("AndroidMessagePriority", "NORMAL", "HIGH"),
    "ttl": _duration,
    "data": _strings,
    "notification": _message("AndroidNotification", _ANDROID_NOTIFICATION),
    "fcm_options": _message("AndroidFcmOptions", _LABEL),
}
_APNS = {
    "headers": _strings,
    "payload": _free,
    "fcm_options": _message("ApnsFcmOptions", {**_LABEL, "image": _string}),
    "live_activity_token": _string,
}
_WEBPUSH = {
    **_all(_strings, "headers", "data"),
    "notification": _free,
    "fcm_options": _message("WebpushFcmOptions", {**_LABEL, "link": _string}),
}
_MESSAGE = {
    **_all(_string, "name", *TARGETS),
    "data": _strings,
    "notification": _message("Notification", _all(_string, "title", "body", "image")),
    "android": _message("AndroidConfig", _ANDROID),
    "apns": _message("ApnsConfig", _APNS),
    "webpush": _message("WebpushConfig", _WEBPUSH),
    "fcm_options": _message("FcmOptions", _LABEL),
}
_REQUEST = _message(
    "SendMessageRequest", {"validate_only": _boolean, "message": _message("Message", _MESSAGE, TARGETS)}
)
