"""Places and manages calls by Plivo's own Python SDK, unmodified but for the base URL.

Called with base URL, auth id, auth token; reads one JSON array a line, ["create", {...}] and the like, and prints what
the SDK gave for each, or the exception it raised.
"""
import json
import sys

import plivo
from plivo.rest import client as rest

base, auth_id, auth_token = sys.argv[1:4]
for name in ("PLIVO_API_BASE_URI", "API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
    setattr(rest, name, base + "/v1/Account")
calls = plivo.RestClient(auth_id, auth_token).calls


def plain(value):
    """What an SDK object holds, without its client."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    fields = getattr(value, "__dict__", {})
    return {name: plain(one) for name, one in fields.items() if name not in ("client", "_client") and not callable(one)}


DO = {
    "create": lambda a: calls.create(**a),
    "get": lambda a: calls.get(a),
    "live": lambda a: calls.live_call_list_ids(),
    "queued": lambda a: calls.queued_call_list_ids(),
    "live_get": lambda a: calls.live_call_get(a),
    "list": lambda a: calls.list(**a),
    "hangup": lambda a: calls.delete(a),
    "cancel": lambda a: calls.cancel(a),
    "play": lambda a: calls.play(**a),
    "stop_playing": lambda a: calls.stop_playing(a),
    "speak": lambda a: calls.speak(**a),
    "stop_speaking": lambda a: calls.stop_speaking(a),
    "send_digits": lambda a: calls.send_digits(**a),
    "transfer": lambda a: calls.transfer(**a),
}
for line in sys.stdin:
    what, argument = json.loads(line)
    try:
        told = {"ok": plain(DO[what](argument))}
    except Exception as error:  # the SDK's own kinds are what is looked at
        told = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(told, default=str), flush=True)
