"""Malformed requests and bytes to every server: each gets an error in its documented form, and the next client is served.

Written with Python's own library only, so that nothing tidies up a request before it leaves.
"""

import http.client
import json
import socket
import ssl
import struct
from urllib.parse import quote, urlencode, urlparse

from sandbox import CA, HUB, MAILBOXES, MICROSOFT, SALESFORCE, equal, run, statement

ADA = MAILBOXES[0]["address"]
USER = f"/v1.0/users/{ADA}"
DATA = "/services/data/v66.0"
DEEP = 20_000


def ask(base, method, path, body=None, headers=None):
    """Sends one request as it is; returns status, headers and body."""
    place = urlparse(base)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def form(base, path, **fields):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = ask(base, "POST", path, urlencode(fields), headers)
    equal(status, 200)
    return json.loads(body)["access_token"]


GRAPH_TOKEN = form(
    MICROSOFT["authority_http"],
    f"/{MICROSOFT['tenant_id']}/oauth2/v2.0/token",
    grant_type="client_credentials",
    client_id=MICROSOFT["client_id"],
    client_secret=MICROSOFT["client_secret"],
    scope="https://graph.microsoft.com/.default",
)
SALESFORCE_TOKEN = form(
    SALESFORCE["login_http"],
    "/services/oauth2/token",
    grant_type="client_credentials",
    client_id=SALESFORCE["client_id"],
    client_secret=SALESFORCE["client_secret"],
)


def graph(method, path, body=None, **headers):
    all_headers = {"Authorization": f"Bearer {GRAPH_TOKEN}", "Content-Type": "application/json"} | headers
    status, answer_headers, text = ask(MICROSOFT["authority_http"], method, path, body, all_headers)
    assert answer_headers["request-id"], f"{method} {path}: no request id"
    return status, text


def graph_refuses(status, method, path, body=None, **headers):
    found, text = graph(method, path, body, **headers)
    equal(found, status, f"status of {method} {path[:80]} {str(body)[:60]}")
    if method != "HEAD":
        error = json.loads(text)["error"]
        assert error["code"] and error["message"] and error["innerError"]["request-id"], error


def salesforce(method, path, body=None, token=SALESFORCE_TOKEN, **headers):
    all_headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | headers
    return ask(SALESFORCE["instance_http"], method, path, body, all_headers)


def salesforce_refuses(status, code, method, path, body=None, **more):
    found, _, text = salesforce(method, path, body, **more)
    equal(found, status, f"status of {method} {path[:80]} {str(body)[:60]}")
    (error,) = json.loads(text)
    equal(error["errorCode"], code, f"code of {method} {path[:80]}")
    assert error["message"], error


@statement("Graph: bodies that are not what they should be")
def _():
    start = {"dateTime": "2027-01-01T10:00:00", "timeZone": "UTC"}
    for body in [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        b"\xff\xfe\x00",
        "[" * DEEP,
        '{"subject": 5}',
        json.dumps({"start": "x", "end": 7}),
        json.dumps({"start": start, "end": {"dateTime": "2026-01-01T10:00:00", "timeZone": "UTC"}}),
        json.dumps({"start": start, "end": {"dateTime": "soon", "timeZone": "UTC"}}),
        json.dumps({"start": start, "end": {"dateTime": "2027-01-01T11:00:00", "timeZone": "Nowhere"}}),
        json.dumps({"start": start, "end": start, "showAs": "asleep"}),
        json.dumps({"start": start, "end": start, "attendees": [5]}),
        json.dumps({"start": start, "end": start, "recurrence": {"pattern": {"type": "hourly"}}}),
    ]:
        graph_refuses(400, "POST", f"{USER}/events", body)
    graph_refuses(413, "POST", f"{USER}/events", "x" * (4 * 1024 * 1024 + 1))


@statement("Graph: paths, versions and methods that do not exist")
def _():
    for path in ["/", "/v1.0", "/v1.0/", "/v9.9/users", "/v1.0/nonsense", f"{USER}/nonsense", "/v1.0/users/%FF"]:
        graph_refuses(400, "GET", path)
    for path in ["/v1.0/users/%00", "/v1.0/users/nobody", "/v1.0/users/nobody/events", "/v1.0/subscriptions/nothing"]:
        graph_refuses(404, "GET", path)
    for method in ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]:
        graph_refuses(405, method, f"{USER}/events", "{}" if method == "PUT" else None)
    graph_refuses(400, "DELETE", f"{USER}/events/{'A' * 5000}")


@statement("Graph: query options that are not what they should be")
def _():
    for option in [
        "$top=0",
        "$top=-1",
        "$top=abc",
        "$skip=-1",
        "$skip=99999999999999999999",
        "$filter=",
        "$filter=" + "(" * 3000,
        "$filter=" + "not%20" * 1000 + "isAllDay",
        "$filter=nonsense%20eq%20'x'",
        "$orderby=nonsense",
        "$select=nonsense",
        "$expand=nonsense",
    ]:
        graph_refuses(400, "GET", f"{USER}/events?{option}")
    for window in [
        "",
        "startDateTime=x&endDateTime=y",
        "startDateTime=2027-01-02&endDateTime=2027-01-01",
        "startDateTime=0001-01-01T00:00:00Z&endDateTime=9999-12-31T23:59:59Z",
    ]:
        graph_refuses(400, "GET", f"{USER}/calendarView?{window}")
    graph_refuses(400, "GET", f"{USER}/calendarView/delta?$deltatoken=nonsense")
    graph_refuses(400, "GET", f"{USER}/events", Prefer='outlook.timezone="Nowhere"')
    equal(graph("GET", f"{USER}/events", Prefer='=;,"')[0], 200)
    equal(graph("GET", f"{USER}/events?$skip=18446744073709551615")[0], 200)


@statement("Graph: batches that are not what they should be")
def _():
    call = {"id": "1", "method": "GET", "url": "/users"}
    for requests in [
        None,
        5,
        [],
        [5],
        [{**call, "id": None}],
        [{**call, "method": "G ET"}],
        [{"id": "1", "method": "GET"}],
        [call, call],
        [{**call, "dependsOn": ["1"]}],
        [{**call, "dependsOn": ["2"]}],
        [{**call, "body": {}}],
        [{**call, "id": str(number)} for number in range(21)],
    ]:
        graph_refuses(400, "POST", "/v1.0/$batch", json.dumps({"requests": requests}))
    inner = [{**call, "url": ""}, {**call, "id": "2", "url": "$batch", "method": "POST"}]
    status, text = graph("POST", "/v1.0/$batch", json.dumps({"requests": inner}))
    equal((status, [part["status"] for part in json.loads(text)["responses"]]), (200, [400, 400]))


@statement("Graph: subscriptions that are not what they should be")
def _():
    good = {
        "changeType": "created",
        "notificationUrl": HUB["notification_url"],
        "resource": f"users/{ADA}/events",
        "expirationDateTime": "2099-01-01T00:00:00Z",
    }
    for change in [
        {"changeType": 5},
        {"changeType": "exploded"},
        {"notificationUrl": []},
        {"notificationUrl": "ftp://nowhere"},
        {"resource": {}},
        {"resource": "nonsense"},
        {"expirationDateTime": True},
        {"expirationDateTime": "soon"},
        {"clientState": "x" * 1000},
        {},
    ]:
        graph_refuses(400, "POST", "/v1.0/subscriptions", json.dumps(good | change))


@statement("Graph: no token, or none of the directory's")
def _():
    for value in ["", "Basic x", "Bearer", "Bearer ..", "Bearer " + "x" * 8000]:
        graph_refuses(401, "GET", f"{USER}/events", Authorization=value)


@statement("Salesforce: bodies that are not what they should be")
def _():
    for body in ["", "{", "[]", b"\xff\xfe", "[" * DEEP, '{"Subject": {"a": 1}}', '{"StartDateTime": "x"}']:
        salesforce_refuses(400, "JSON_PARSER_ERROR", "POST", f"{DATA}/sobjects/Event", body)
    long = '{"StartDateTime": "2027-01-01T00:00:00Z", "DurationInMinutes": 99999999999999}'
    salesforce_refuses(400, "FIELD_INTEGRITY_EXCEPTION", "POST", f"{DATA}/sobjects/Event", long)
    salesforce_refuses(400, "REQUIRED_FIELD_MISSING", "POST", f"{DATA}/sobjects/Event", "{}")
    salesforce_refuses(400, "JSON_PARSER_ERROR", "PATCH", f"{DATA}/composite/sobjects", '{"records": [5]}')
    salesforce_refuses(400, "INVALID_INPUT", "POST", f"{DATA}/composite", "{}")
    salesforce_refuses(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "POST", f"{DATA}/sobjects/User", "{}")


@statement("Salesforce: paths, versions, methods and ids that do not exist")
def _():
    for path in ["/", "/services", f"{DATA}/nonsense", "/services/data/v1.0/limits", "/services/data/v66/limits"]:
        salesforce_refuses(404, "NOT_FOUND", "GET", path)
    for path in ["Nonsense", "Event/x", "Event/nonsense/y", "Event/00U000000000001AAA"]:
        salesforce_refuses(404, "NOT_FOUND", "GET", f"{DATA}/sobjects/{path}")
    for method, path in [("PUT", "sobjects/Event"), ("OPTIONS", "limits"), ("DELETE", "query"), ("BREW", "limits")]:
        salesforce_refuses(405, "METHOD_NOT_ALLOWED", method, f"{DATA}/{path}")
    salesforce_refuses(405, "METHOD_NOT_ALLOWED", "POST", "/services/data")
    equal(salesforce("HEAD", f"{DATA}/limits")[0], 200)
    for token in ["", "x" * 8000]:
        salesforce_refuses(401, "INVALID_SESSION_ID", "GET", f"{DATA}/limits", token=token)


@statement("Salesforce: queries that are not what they should be")
def _():
    for query in [
        "",
        "SELECT",
        "SELECT Id FROM",
        "SELECT Id FROM Event WHERE " + "(" * 5000 + "IsChild = true" + ")" * 5000,
        "SELECT Id FROM Event WHERE " + "NOT " * 5000 + "IsChild = true",
        "SELECT Id FROM Event LIMIT -1",
        "SELECT Id FROM Event LIMIT 99999999999999999999",
        "SELECT Id FROM Event WHERE Subject = 'open",
        "SELECT é FROM Event",
        "DROP TABLE Event",
    ]:
        salesforce_refuses(400, "MALFORMED_QUERY", "GET", f"{DATA}/query?q={quote(query)}")
    for query in ["SELECT Nonsense FROM Event", "SELECT Id FROM Event WHERE CreatedDate = LAST_N_DAYS:99999999999999"]:
        salesforce_refuses(400, "INVALID_FIELD", "GET", f"{DATA}/query?q={quote(query)}")
    for locator in ["nonsense", "01gSb-99999999999999999999999", "%FF-1"]:
        salesforce_refuses(400, "INVALID_QUERY_LOCATOR", "GET", f"{DATA}/query/{locator}")
    for span in ["", "?start=x&end=y", "?start=9999-12-31T23:59:59Z&end=9999-12-31T23:59:59Z"]:
        salesforce_refuses(400, "INVALID_REPLICATION_DATE", "GET", f"{DATA}/sobjects/Event/updated/{span}")


@statement("Salesforce: token requests that are not what they should be get OAuth errors")
def _():
    for path, body, error in [
        ("token", "", "invalid_request"),
        ("token", "grant_type=password&username=x", "unsupported_grant_type"),
        ("token", "grant_type=client_credentials", "invalid_client_id"),
        ("token", "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion=x.y.z", "invalid_grant"),
        ("token", b"\xff\xfe%zz&&=", "invalid_request"),
        ("revoke", "token=nonsense", "invalid_token"),
        ("introspect", "token=x", "invalid_client_id"),
    ]:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        status, _, text = ask(SALESFORCE["login_http"], "POST", f"/services/oauth2/{path}", body, headers)
        equal((status, json.loads(text)["error"]), (400, error), f"answer to {path} {body!r}")
    equal(ask(SALESFORCE["login_http"], "GET", "/services/oauth2/userinfo")[0], 403)


@statement("HTTP that is none: each server answers or closes, and serves the next client")
def _():
    for base in [MICROSOFT["authority_http"], SALESFORCE["instance_http"]]:
        place = urlparse(base)
        for request in [
            b"\x00" * 64,
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        ]:
            exchange((place.hostname, place.port), request)
        assert ask(base, "GET", "/")[0] in (400, 404)


def exchange(address, sent, tls=False, quiet_secs=2):
    """Sends bytes and returns what comes back until the server closes or says no more."""
    with socket.create_connection(address, timeout=10) as plain:
        if tls:
            context = ssl.create_default_context(cafile=CA)
            context.set_alpn_protocols(["h2"])
            plain = context.wrap_socket(plain, server_hostname="localhost")
        plain.settimeout(quiet_secs)
        received = b""
        try:
            plain.sendall(sent)
            while part := plain.recv(65536):
                received += part
        except (TimeoutError, ConnectionError, ssl.SSLError):
            pass
        finally:
            plain.close()
        return received


AMQP, SASL = b"AMQP\x00\x01\x00\x00", b"AMQP\x03\x01\x00\x00"


def frame(body, channel=0, kind=0):
    return struct.pack(">IBBH", 8 + len(body), 2, kind, channel) + body


# As the specification of AMQP 1.0 encodes them: SASL ANONYMOUS; open with container id `x`; begin.
ANONYMOUS = frame(b"\x00\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS", kind=1)
OPEN = frame(b"\x00\x53\x10\xc0\x04\x01\xa1\x01x")
BEGIN = frame(b"\x00\x53\x11\xc0\x0b\x04\x40\x43\x70\x00\x00\x08\x00\x52\x64")


def speak(connection, step, until=b""):
    """Sends bytes and collects the answer until it holds `until`, the server closes, or it is silent for a second."""
    connection.settimeout(10 if until else 1)
    answer = b""
    try:
        connection.sendall(step)
        while part := connection.recv(65536):
            answer += part
            if until and until in answer:
                break
    except (TimeoutError, ConnectionError):
        pass
    return answer


def amqp():
    return socket.create_connection((HUB["host"], HUB["amqp_port"]), timeout=10)


def opened():
    """Opens a connection by hand: SASL, then the header and `open` of both sides."""
    connection = amqp()
    # The outcome of SASL is performative 0x44, with the code `ok`.
    assert b"\x00SD" in speak(connection, SASL + ANONYMOUS, until=b"\x00SD"), "SASL was not settled"
    connection.sendall(AMQP + OPEN)
    return connection


def has_session(connection):
    """Tells whether the connection serves: `begin`, performative 0x11, is answered by one."""
    return b"\x00S\x11" in speak(connection, BEGIN, until=b"\x00S\x11")


@statement("AMQP: odd headers are answered by the header that is spoken here, odd SASL frames by an end")
def _():
    for odd in [b"HTTP/1.1 GET /\r\n\r\n", b"AMQP\x00\x09\x09\x09", AMQP + OPEN, b"AMQP\x02\x01\x00\x00"]:
        with amqp() as connection:
            equal(speak(connection, odd, until=SASL), SASL, f"answer to {odd[:8]!r}")
    for odd in [frame(b"", kind=1), frame(b"\xff" * 20, kind=1), OPEN, b"\xff" * 64]:
        with amqp() as connection:
            assert b"\x00SD" not in speak(connection, SASL + odd), f"{odd[:12]!r} signed in"


@statement("AMQP: odd frames on an open connection end it at most, and never another one")
def _():
    with opened() as neighbour:
        for odd in [
            frame(b"\xff" * 100),
            frame(b"\x00\x53\x99\x45"),
            frame(b"\x00\x53\x12\x45", channel=7),
            frame(b"\x00\x53\x14\xc0\x02\x01\x43"),
            b"\x00\x00\x00\x03\x02\x00\x00\x00",
            b"\xff\xff\xff\xff\x02\x00\x00\x00",
            frame(b"\x00\x53\x10" + b"\xc0\xff\xff" * 50),
            frame(b"\x00\x53\x10\xd0\x7f\xff\xff\xff\x7f\xff\xff\xff"),
            frame(b"\x00" + b"\xc0\x7f\x01" * 5000),
        ]:
            with opened() as connection:
                speak(connection, odd)
        assert has_session(neighbour), "the neighbour was disturbed"
    # An empty frame only says that the peer is alive.
    with opened() as connection:
        connection.sendall(frame(b""))
        assert has_session(connection), "no session after an empty frame"


@statement("Pub/Sub: bytes that are no HTTP/2, and gRPC calls that are none, end by themselves")
def _():
    host, port = SALESFORCE["pubsub"].split(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for odd in [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
        preface,
        preface + settings + b"\xff" * 64,
        preface + settings + b"\x00\x00\x05\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff\xff",
        preface + b"\xff\xff\xff\x00\x00\x00\x00\x00\x00",
    ]:
        exchange((host, int(port)), odd, tls=True, quiet_secs=0.5)
    assert exchange((host, int(port)), preface + settings, tls=True, quiet_secs=0.5), "no settings"


@statement("after all that every server still serves")
def _():
    equal(graph("GET", "/v1.0/users")[0], 200)
    equal(salesforce("GET", f"{DATA}/limits")[0], 200)
    with opened() as connection:
        assert has_session(connection), "no session"


run()
