"""What every Python client here shares: the sandbox's addresses, its control API, and how a statement is checked.

The environment variable SANDBOX_ENDPOINTS names the file that `calbridge-sandbox serve` wrote; `run.py` sets it.
"""

import asyncio
import inspect
import json
import os
import signal
import sys
import time
import traceback
import urllib.request

with open(os.environ["SANDBOX_ENDPOINTS"], encoding="utf-8") as file:
    ENDPOINTS = json.load(file)
MICROSOFT = ENDPOINTS["microsoft"]
HUB = ENDPOINTS["event_hubs"]
SALESFORCE = ENDPOINTS["salesforce"]
MAILBOXES = ENDPOINTS["mailboxes"]
CA = ENDPOINTS["ca_certificate"]

# Before any client is imported: requests, httpx and OpenSSL each read their own variable. A proxy of the machine must
# not stand between a client and the loopback.
os.environ.update(REQUESTS_CA_BUNDLE=CA, SSL_CERT_FILE=CA, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=CA, NO_PROXY="*", no_proxy="*")

# No statement takes nearly as long; a client that hangs is a failed statement, not a stuck run.
DEADLINE_SECS = 60

_statements = []


def statement(text):
    """Marks a function as the check of one statement; it fails by raising."""

    def keep(check):
        _statements.append((text, check))
        return check

    return keep


class TookTooLong(BaseException):
    """Not an Exception: a client's own `except Exception` must not swallow it."""


def _too_long(_signal, _frame):
    raise TookTooLong(f"no answer within {DEADLINE_SECS} s")


def run():
    """Checks all statements in the order of the file, prints one line each, and ends the process."""
    signal.signal(signal.SIGALRM, _too_long)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    failed = 0
    for text, check in _statements:
        signal.alarm(DEADLINE_SECS)
        began = time.monotonic()
        try:
            outcome = check()
            if inspect.isawaitable(outcome):
                loop.run_until_complete(outcome)
            print(f"ok      {text} ({time.monotonic() - began:.1f} s)", flush=True)
        except (Exception, TookTooLong) as error:
            failed += 1
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAILED  {text}: {reason[:600]}", flush=True)
            traceback.print_exc(file=sys.stderr)
        finally:
            signal.alarm(0)
    sys.stdout.flush()
    # Some clients leave threads behind that would keep the process alive.
    os._exit(1 if failed else 0)


def control(method, path, body=None):
    """Calls the sandbox's control API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ENDPOINTS["control_url"] + path, data=data, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def switch(**changes):
    """Sets switches of the sandbox; their names are in its README."""
    return control("PATCH", "/switches", changes)


def equal(found, wanted, what="value"):
    assert found == wanted, f"{what} is {found!r}, not {wanted!r}"


def raises(kind, call, *args, **kwargs):
    """Returns the error that a call must end with."""
    try:
        outcome = call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {outcome!r}")


def eventually(what, probe, within_secs=20):
    """Polls until the probe gives something true, and returns it."""
    end = time.monotonic() + within_secs
    while not (found := probe()):
        assert time.monotonic() < end, f"{what} did not happen within {within_secs} s"
        time.sleep(0.05)
    return found
