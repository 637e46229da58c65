"""Salesforce REST through the best-known Python client.

package: simple-salesforce
"""

from datetime import datetime, timedelta, timezone

import requests
from sandbox import CA, MAILBOXES, SALESFORCE, control, equal, raises, run, statement, switch

from simple_salesforce import Salesforce, SalesforceLogin
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceGeneralError,
    SalesforceMalformedRequest,
    SalesforceMoreThanOneRecord,
    SalesforceRefusedRequest,
    SalesforceResourceNotFound,
)

ADA = MAILBOXES[0]
START = "2027-03-01T09:00:00Z"
made = {}


def session():
    http = requests.Session()
    http.verify = CA
    http.trust_env = False
    return http


def token():
    form = {
        "grant_type": "client_credentials",
        "client_id": SALESFORCE["client_id"],
        "client_secret": SALESFORCE["client_secret"],
    }
    answer = session().post(SALESFORCE["login_https"] + "/services/oauth2/token", data=form, timeout=30)
    equal(answer.status_code, 200)
    return answer.json()


def client(session_id=None, **options):
    grant = token() if session_id is None else {"access_token": session_id, "instance_url": SALESFORCE["instance_https"]}
    return Salesforce(
        session_id=grant["access_token"], instance_url=grant["instance_url"], version="66.0", session=session(), **options
    )


SF = client(client_id="calbridge-clients/1")


def refused(kind, status, code, call, *args, **kwargs):
    error = raises(kind, call, *args, **kwargs)
    equal(error.status, status, "status")
    equal(error.content[0]["errorCode"], code, "error code")
    assert error.content[0]["message"], error.content
    return error


def event(subject, **more):
    return {"Subject": subject, "StartDateTime": START, "DurationInMinutes": 30, **more}


@statement("an event is created and read back, by id and by chosen fields")
def _():
    answer = SF.Event.create(event("Call", Location="Room 1", ShowAs="OutOfOffice", OwnerId=ADA["salesforce_user_id"]))
    equal((answer["success"], answer["errors"], len(answer["id"])), (True, [], 18))
    made["id"] = answer["id"]
    found = SF.Event.get(made["id"])
    equal(found["attributes"], {"type": "Event", "url": f"/services/data/v66.0/sobjects/Event/{made['id']}"})
    equal((found["Subject"], found["Location"], found["ShowAs"]), ("Call", "Room 1", "OutOfOffice"))
    equal((found["StartDateTime"], found["EndDateTime"]), ("2027-03-01T09:00:00.000+0000", "2027-03-01T09:30:00.000+0000"))
    few = SF.Event.get(made["id"], params={"fields": "Subject,OwnerId"})
    equal(few["OwnerId"], ADA["salesforce_user_id"])
    assert "Location" not in few, few


@statement("an update answers 204, sets null, and is seen at once, also through a 15-character id")
def _():
    equal(SF.Event.update(made["id"][:15], {"Subject": "Longer call", "Location": None, "DurationInMinutes": 45}), 204)
    found = SF.Event.get(made["id"])
    equal((found["Subject"], found["Location"], found["EndDateTime"][11:16]), ("Longer call", None, "09:45"))


@statement("an upsert by external id creates, then changes")
def _():
    created = SF.Event.upsert("Calbridge_Link__c/L-1", event("Linked"), raw_response=True)
    equal((created.status_code, created.json()["created"]), (201, True))
    changed = SF.Event.upsert("Calbridge_Link__c/L-1", {"Subject": "Linked twice"}, raw_response=True)
    equal((changed.status_code, changed.json()["id"]), (200, created.json()["id"]))
    found = SF.Event.get_by_custom_id("Calbridge_Link__c", "L-1")
    equal((found["Subject"], found["Calbridge_Link__c"]), ("Linked twice", "L-1"))


@statement("a query pages through more rows than one answer holds")
def _():
    for first in range(0, 410, 200):
        records = [
            {"attributes": {"type": "Event"}, **event(f"Row {number:03}")} for number in range(first, min(first + 200, 410))
        ]
        answer = SF.restful("composite/sobjects", method="POST", json={"allOrNone": True, "records": records})
        equal([row["success"] for row in answer], [True] * len(records))
    query = "SELECT Id, Subject FROM Event WHERE Subject LIKE 'Row %' ORDER BY Subject"
    small = {"Sforce-Query-Options": "batchSize=200"}
    page = SF.query(query, headers=small)
    equal((page["totalSize"], page["done"], len(page["records"])), (410, False, 200))
    page = SF.query_more(page["nextRecordsUrl"], identifier_is_url=True, headers=small)
    equal((page["done"], len(page["records"]), page["records"][0]["Subject"]), (False, 200, "Row 200"))
    page = SF.query_more(page["nextRecordsUrl"].rsplit("/", 1)[1], headers=small)
    equal((page["done"], len(page["records"]), page["records"][-1]["Subject"]), (True, 10, "Row 409"))
    everything = SF.query_all(query)
    equal(len(everything["records"]), 410)
    equal(len([row["Id"] for row in SF.query_all_iter(query, headers=small)]), 410)


@statement("queries count, join owners, compare lists, dates and nulls, order and limit")
def _():
    equal(SF.query("SELECT COUNT() FROM Event WHERE Subject LIKE 'Row 00%'")["totalSize"], 10)
    equal(SF.query("SELECT COUNT(Id) number FROM Event WHERE Subject LIKE 'Row 00%'")["records"][0]["number"], 10)
    row = SF.query(f"SELECT Id, Owner.Name, Owner.Email FROM Event WHERE Id IN ('{made['id']}', '00U000000000001AAA')")["records"][0]
    equal((row["Owner"]["Name"], row["Owner"]["Email"]), (ADA["name"], ADA["address"]))
    rows = SF.query("SELECT Id FROM Event WHERE CreatedDate = TODAY AND Location = null ORDER BY CreatedDate DESC NULLS LAST LIMIT 7")
    equal(len(rows["records"]), 7)
    equal(SF.query("SELECT Id FROM Event WHERE StartDateTime < 2027-01-01T00:00:00Z")["totalSize"], 0)
    equal(SF.query("SELECT Id FROM Event WHERE CreatedDate = LAST_N_DAYS:2 AND (NOT Subject LIKE 'Row%')")["totalSize"], 2)
    quoted = SF.Event.create(event("O'Neil \\ 100%"))["id"]
    found = SF.query("SELECT Id FROM Event WHERE Subject = 'O\\'Neil \\\\ 100%'")
    equal([row["Id"] for row in found["records"]], [quoted])
    people = SF.query("SELECT Id, Name, Username FROM User WHERE IsActive = true ORDER BY Name")
    assert ADA["salesforce_user_id"] in [row["Id"] for row in people["records"]], people


@statement("an event is deleted, then 404, and is found by queryAll alone")
def _():
    equal(SF.Event.delete(made["id"]), 204)
    refused(SalesforceResourceNotFound, 404, "ENTITY_IS_DELETED", SF.Event.get, made["id"])
    query = f"SELECT Id, IsDeleted FROM Event WHERE Id = '{made['id']}'"
    equal(SF.query(query)["totalSize"], 0)
    equal(SF.query(query, include_deleted=True)["records"][0]["IsDeleted"], True)


@statement("getUpdated and getDeleted name what changed within a span")
def _():
    start, end = datetime.now(timezone.utc) - timedelta(hours=1), datetime.now(timezone.utc) + timedelta(minutes=2)
    updated = SF.Event.updated(start, end)
    assert len(updated["ids"]) >= 411 and made["id"] not in updated["ids"], len(updated["ids"])
    assert updated["latestDateCovered"].endswith("+0000"), updated
    deleted = SF.Event.deleted(start, end)
    equal([row["id"] for row in deleted["deletedRecords"]], [made["id"]])
    assert deleted["earliestDateAvailable"] and deleted["latestDateCovered"], deleted
    refused(SalesforceMalformedRequest, 400, "INVALID_REPLICATION_DATE", SF.Event.updated, end, start)


@statement("each answer carries the limit header, and the limits agree with it")
def _():
    SF.limits()
    used, most = SF.api_usage["api-usage"].used, SF.api_usage["api-usage"].total
    assert 0 < used < most, SF.api_usage
    limits = SF.limits()["DailyApiRequests"]
    equal((limits["Max"], limits["Remaining"]), (most, most - used - 1))


@statement("300: an external id that several records carry")
def _():
    switch(salesforce_link_unique=False)
    for _number in range(2):
        SF.Event.create(event("Twin", Calbridge_Link__c="TWIN"))
    error = raises(SalesforceMoreThanOneRecord, SF.Event.get_by_custom_id, "Calbridge_Link__c", "TWIN")
    equal((error.status, len(error.content)), (300, 2))
    assert all(url.startswith("/services/data/v66.0/sobjects/Event/00U") for url in error.content), error.content
    raises(SalesforceMoreThanOneRecord, SF.Event.upsert, "Calbridge_Link__c/TWIN", {"Subject": "x"})
    switch(salesforce_link_unique=True)


@statement("400: unknown field, broken query, missing field, duplicate value, wrong picklist, wrong type")
def _():
    cases = [
        ("INVALID_FIELD", SF.Event.create, event("x", Nonsense="y")),
        ("MALFORMED_QUERY", SF.query, "SELECT Id FROM"),
        ("INVALID_FIELD", SF.query, "SELECT Nonsense FROM Event"),
        ("INVALID_TYPE", SF.query, "SELECT Id FROM Nonsense"),
        ("DUPLICATE_VALUE", SF.Event.create, event("x", Calbridge_Link__c="L-1")),
        ("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", SF.Event.create, event("x", ShowAs="Away")),
        ("STRING_TOO_LONG", SF.Event.create, event("x" * 256)),
        ("JSON_PARSER_ERROR", SF.Event.create, event("x", DurationInMinutes="soon")),
    ]
    for code, call, argument in cases:
        refused(SalesforceMalformedRequest, 400, code, call, argument)
    error = refused(SalesforceMalformedRequest, 400, "REQUIRED_FIELD_MISSING", SF.EventRelation.create, {"RelationId": ADA["salesforce_user_id"]})
    equal(error.content[0]["fields"], ["EventId"])


@statement("401: a token that nobody issued, and one that was revoked")
def _():
    refused(SalesforceExpiredSession, 401, "INVALID_SESSION_ID", client("nonsense").limits)
    other = client()
    other.limits()
    switch(salesforce_revoke_tokens=True)
    refused(SalesforceExpiredSession, 401, "INVALID_SESSION_ID", other.limits)


@statement("403: the day's requests are used up; 404: no such record, object or path")
def _():
    fresh = client()
    switch(salesforce_limit_next=1)
    refused(SalesforceRefusedRequest, 403, "REQUEST_LIMIT_EXCEEDED", fresh.limits)
    refused(SalesforceResourceNotFound, 404, "NOT_FOUND", fresh.Event.get, "00U000000000001AAA")
    refused(SalesforceResourceNotFound, 404, "NOT_FOUND", fresh.Nonsense.get, "00U000000000001AAA")
    refused(SalesforceResourceNotFound, 404, "NOT_FOUND", fresh.restful, "nonsense")
    refused(SalesforceGeneralError, 405, "METHOD_NOT_ALLOWED", fresh.restful, "limits", method="DELETE")
    switch(salesforce_unavailable_next=1)
    refused(SalesforceGeneralError, 503, "SERVER_UNAVAILABLE", fresh.limits)


@statement("the org describes itself: objects, fields, picklists")
def _():
    fresh = client()
    names = [item["name"] for item in fresh.describe()["sobjects"]]
    assert {"Event", "EventRelation", "User"} <= set(names), names
    fields = {field["name"]: field for field in fresh.Event.describe()["fields"]}
    equal([value["value"] for value in fields["ShowAs"]["picklistValues"]], ["Busy", "OutOfOffice", "Free"])
    equal((fields["StartDateTime"]["type"], fields["OwnerId"]["type"]), ("datetime", "reference"))
    assert fields["Calbridge_Link__c"]["externalId"], fields["Calbridge_Link__c"]
    equal(fresh.Event.metadata()["objectDescribe"]["keyPrefix"], "00U")
    assert fresh.is_sandbox() in (True, False)


@statement("several calls in one: composite with a reference to an earlier answer")
def _():
    fresh = client()
    calls = [
        {
            "method": "POST",
            "url": "/services/data/v66.0/sobjects/Event",
            "referenceId": "new",
            "body": event("Composite"),
        },
        {"method": "GET", "url": "/services/data/v66.0/sobjects/Event/@{new.id}?fields=Subject", "referenceId": "read"},
    ]
    answer = fresh.restful("composite", method="POST", json={"allOrNone": True, "compositeRequest": calls})
    equal([part["httpStatusCode"] for part in answer["compositeResponse"]], [201, 200])
    equal(answer["compositeResponse"][1]["body"]["Subject"], "Composite")


@statement("the client logs in by itself with client credentials and with a signed assertion")
def _():
    class Elsewhere(requests.adapters.HTTPAdapter):
        """The client knows no other login host than Salesforce's, so the way there is turned, as a proxy would."""

        def send(self, request, **options):
            request.url = SALESFORCE["login_https"] + requests.compat.urlparse(request.url).path
            return super().send(request, **options)

    def turned():
        http = session()
        for domain in ("test", "example.my"):
            http.mount(f"https://{domain}.salesforce.com", Elsewhere())
        return http

    with open(SALESFORCE["jwt_key_file"], encoding="utf-8") as file:
        key = file.read()
    application = {"consumer_key": SALESFORCE["client_id"], "session": turned()}
    for options in (
        {"domain": "example.my", "consumer_secret": SALESFORCE["client_secret"]},
        {"domain": "test", "privatekey": key, "username": ADA["salesforce_username"]},
    ):
        access, instance = SalesforceLogin(**application, **options)
        assert access.startswith(SALESFORCE["org_id"][:15] + "!"), access
        assert instance, "no instance"
    raises(SalesforceAuthenticationFailed, SalesforceLogin, **application, domain="example.my", consumer_secret="wrong")


@statement("the sandbox counted the calls of the client under its application")
def _():
    calls = control("GET", "/counters")["calls"][SALESFORCE["client_id"]]
    assert calls["salesforce.create"] >= 5 and calls["salesforce.query_more"] >= 4, calls


run()
