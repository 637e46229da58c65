"""Tokens of the directory: MSAL, which azure-identity and most Microsoft programs sign in with, and azure-identity itself.

package: msal
"""

import json
import urllib.error
import urllib.parse
import urllib.request

from sandbox import CA, MAILBOXES, MICROSOFT, equal, raises, run, statement

import msal
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential

AUTHORITY = f"{MICROSOFT['authority_https']}/{MICROSOFT['tenant_id']}"
GRAPH = "https://graph.microsoft.com/.default"


def application(secret=MICROSOFT["client_secret"], client_id=MICROSOFT["client_id"], authority=AUTHORITY):
    return msal.ConfidentialClientApplication(
        client_id, client_credential=secret, authority=authority, instance_discovery=False, verify=CA
    )


def users(token):
    answer = requests.get(
        MICROSOFT["graph_https"] + "/users", headers={"Authorization": f"Bearer {token}"}, verify=CA, timeout=30
    )
    return answer.status_code, answer.json()


@statement("a token for Graph is issued, kept by the client, and opens Graph")
def _():
    app = application()
    token = app.acquire_token_for_client([GRAPH])
    equal(token["token_type"], "Bearer")
    equal(app.acquire_token_for_client([GRAPH])["access_token"], token["access_token"], "token of the cache")
    status, body = users(token["access_token"])
    equal((status, [user["mail"] for user in body["value"]]), (200, [box["address"] for box in MAILBOXES]))


@statement("the tenant is known by its domain too")
def _():
    app = application(authority=f"{MICROSOFT['authority_https']}/{MICROSOFT['domain']}")
    assert "access_token" in app.acquire_token_for_client([GRAPH])


@statement("a token for Event Hubs does not open Graph, and no token is 401 with the documented envelope")
def _():
    token = application().acquire_token_for_client(["https://eventhubs.azure.net/.default"])
    for access in (token["access_token"], "nonsense"):
        status, body = users(access)
        equal((status, body["error"]["code"]), (401, "InvalidAuthenticationToken"))
        assert body["error"]["innerError"]["request-id"], body


@statement("wrong secret, application, scope and tenant each have their AADSTS code")
def _():
    cases = [
        (application(secret="wrong"), GRAPH, "invalid_client", 7000215),
        (application(client_id="00000000-0000-0000-0000-000000000001"), GRAPH, "unauthorized_client", 700016),
        (application(), "https://nonsense.example/.default", "invalid_scope", 70011),
    ]
    for app, scope, error, code in cases:
        answer = app.acquire_token_for_client([scope])
        equal((answer["error"], answer["error_codes"]), (error, [code]))
        assert answer["error_description"].startswith(f"AADSTS{code}: "), answer
        assert answer["correlation_id"], answer
    raises(ValueError, lambda: application(authority=f"{MICROSOFT['authority_https']}/nowhere.example").acquire_token_for_client([GRAPH]))


@statement("azure-identity gets a token, and passes on the directory's reason when refused")
def _():
    def credential(secret):
        return ClientSecretCredential(
            MICROSOFT["tenant_id"],
            MICROSOFT["client_id"],
            secret,
            authority=MICROSOFT["authority_https"],
            disable_instance_discovery=True,
        )

    token = credential(MICROSOFT["client_secret"]).get_token(GRAPH)
    equal(users(token.token)[0], 200)
    assert "AADSTS7000215" in str(raises(ClientAuthenticationError, credential("wrong").get_token, GRAPH))


@statement("the token endpoint answers malformed requests with OAuth errors")
def _():
    endpoint = f"{MICROSOFT['authority_http']}/{MICROSOFT['tenant_id']}/oauth2/v2.0/token"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(body, method="POST"):
        request = urllib.request.Request(endpoint, data=body, method=method)
        with raises(urllib.error.HTTPError, opener.open, request, timeout=30) as answer:
            return answer.code, json.loads(answer.read())

    for body, error, code in [
        (b"", "invalid_request", 900144),
        (b"\xff\xfe=%zz&&&", "invalid_request", 900144),
        (b"grant_type=password", "unsupported_grant_type", 70003),
        (urllib.parse.urlencode({"grant_type": "client_credentials"}).encode(), "invalid_request", 900144),
    ]:
        status, answer = ask(body)
        equal((status, answer["error"], answer["error_codes"]), (400, error, [code]))
    status, answer = ask(None, "GET")
    equal((status, answer["error_codes"]), (400, [900561]))


run()
