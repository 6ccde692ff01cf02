"""Plivo's Python SDK, controlled by a test. Only the base URL is changed.

Arguments: base URL, auth id, auth token. Reads one JSON array per line, such as ["calls.create", {...}]: a method of the
client, or of `plivo.utils` with the prefix `utils.`, and its arguments (an object for keyword arguments, a list for
positional ones). Prints the result of each call, or the exception.
"""
import json
import sys

import plivo
import plivo.utils
from plivo.rest import client as rest

base, auth_id, auth_token = sys.argv[1:4]
for name in ("PLIVO_API_BASE_URI", "API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
    setattr(rest, name, base + "/v1/Account")
client = plivo.RestClient(auth_id, auth_token)


def plain(value):
    """Returns the fields of an SDK object without its client."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    fields = getattr(value, "__dict__", {})
    return {name: plain(one) for name, one in fields.items() if name not in ("client", "_client") and not callable(one)}


def run(what, arguments):
    if what == "walk":  # every object of a resource, page by page, as its iterator goes
        return [one for one in getattr(client, arguments)]
    target = plivo.utils if what.startswith("utils.") else client
    for name in what.removeprefix("utils.").split("."):
        target = getattr(target, name)
    if isinstance(arguments, dict):
        return target(**arguments)
    return target(*(arguments or []))


for line in sys.stdin:
    what, arguments = json.loads(line)
    try:
        told = {"ok": plain(run(what, arguments))}
    except Exception as error:  # the SDK's own kinds are what is looked at
        told = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(told, default=str), flush=True)
