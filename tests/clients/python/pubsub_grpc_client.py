"""Salesforce's Pub/Sub API as Salesforce's own Python guide shows it: generated stubs, gRPC, and Apache's Avro library.

package: grpcio
"""

import io
import os
import queue
import sys
import tempfile
import threading

import avro.io
import avro.schema
import grpc
import requests
from grpc_tools import protoc
from sandbox import CA, MAILBOXES, SALESFORCE, control, equal, raises, run, statement

PROTO = os.environ["PUBSUB_PROTO"]
ADA = MAILBOXES[0]
TOPIC = "/data/EventChangeEvent"
RECORDS = f"/people/{ADA['address']}/salesforce/events"
generated = tempfile.mkdtemp()
status = protoc.main(
    ["protoc", f"-I{os.path.dirname(PROTO)}", f"--python_out={generated}", f"--grpc_python_out={generated}", PROTO]
)
assert status == 0, "the service definition does not compile"
sys.path.insert(0, generated)
import pubsub_api_pb2 as pb2  # noqa: E402
import pubsub_api_pb2_grpc as pb2_grpc  # noqa: E402

with open(CA, "rb") as file:
    CHANNEL = grpc.secure_channel(SALESFORCE["pubsub"], grpc.ssl_channel_credentials(file.read()))
STUB = pb2_grpc.PubSubStub(CHANNEL)
schemas = {}
made = {}


def token():
    form = {
        "grant_type": "client_credentials",
        "client_id": SALESFORCE["client_id"],
        "client_secret": SALESFORCE["client_secret"],
    }
    answer = requests.post(SALESFORCE["login_https"] + "/services/oauth2/token", data=form, verify=CA, timeout=30)
    return answer.json()["access_token"]


def metadata(access=None):
    return (
        ("accesstoken", access or TOKEN),
        ("instanceurl", SALESFORCE["instance_https"]),
        ("tenantid", SALESFORCE["org_id"]),
    )


TOKEN = token()


class Stream:
    """A Subscribe call whose requests are written one by one."""

    def __init__(self, access=None, **first):
        self.requests = queue.Queue()
        self.ask(topic_name=TOPIC, **first)
        self.answers = STUB.Subscribe(iter(self.requests.get, None), metadata=metadata(access), timeout=30)

    def ask(self, num_requested=10, **more):
        self.requests.put(pb2.FetchRequest(num_requested=num_requested, **more))

    def events(self, count):
        found = []
        while len(found) < count:
            answer = next(self.answers)
            found.extend(answer.events)
            self.newest, self.pending = answer.latest_replay_id, answer.pending_num_requested
        return found

    def close(self):
        self.requests.put(None)
        self.answers.cancel()


def decode(event):
    schema_id = event.event.schema_id
    if schema_id not in schemas:
        info = STUB.GetSchema(pb2.SchemaRequest(schema_id=schema_id), metadata=metadata())
        equal(info.schema_id, schema_id)
        schemas[schema_id] = avro.schema.parse(info.schema_json)
    decoder = avro.io.BinaryDecoder(io.BytesIO(event.event.payload))
    return avro.io.DatumReader(schemas[schema_id]).read(decoder)


def names(schema_id, bitmaps):
    """Expands the bitmaps of changed fields: hexadecimal, bit n for field n; nested ones are `position-bitmap`."""
    fields = [field.name for field in schemas[schema_id].fields]
    found = []
    for bitmap in bitmaps:
        assert "-" not in bitmap, "no compound fields in an Event"
        bits = int(bitmap, 16)
        found += [name for number, name in enumerate(fields) if bits >> number & 1]
    return found


@statement("the topic is described, and its schema is the one of its events")
def _():
    topic = STUB.GetTopic(pb2.TopicRequest(topic_name=TOPIC), metadata=metadata())
    equal((topic.topic_name, topic.can_subscribe, topic.can_publish), (TOPIC, True, False))
    assert topic.tenant_guid and topic.schema_id and topic.rpc_id, topic
    info = STUB.GetSchema(pb2.SchemaRequest(schema_id=topic.schema_id), metadata=metadata())
    schema = avro.schema.parse(info.schema_json)
    equal((schema.name, schema.fields[0].name), ("EventChangeEvent", "ChangeEventHeader"))
    equal(len(schema.fields[0].type.fields), 12, "fields of the header")


@statement("LATEST decodes a create and an update with Apache's own reader")
def _():
    stream = Stream()
    body = {"Subject": "Call", "Location": "Room 1", "StartDateTime": "2027-03-01T09:00:00Z", "DurationInMinutes": 30}
    # The answer's headers say that the position is fixed.
    stream.answers.initial_metadata()
    made["id"] = control("POST", RECORDS, body)["id"]
    (created,) = stream.events(1)
    record = decode(created)
    equal((record["Subject"], record["DurationInMinutes"]), ("Call", 30))
    equal((record["ChangeEventHeader"]["changeType"], record["ChangeEventHeader"]["recordIds"]), ("CREATE", [made["id"]]))
    made["replay"] = created.replay_id
    control("PATCH", f"{RECORDS}/{made['id']}", {"Subject": "Longer call", "Location": None})
    (updated,) = stream.events(1)
    record = decode(updated)
    header = record["ChangeEventHeader"]
    equal(set(names(updated.event.schema_id, header["changedFields"])), {"Subject", "Location", "LastModifiedDate"})
    equal(names(updated.event.schema_id, header["nulledFields"]), ["Location"])
    equal((record["Subject"], record["Location"], record["DurationInMinutes"]), ("Longer call", None, None))
    equal((stream.newest, stream.pending), (updated.replay_id, 8))
    stream.close()


@statement("CUSTOM goes on after the replay id, in its long and its short form, and EARLIEST from the start")
def _():
    for replay in (made["replay"], made["replay"][:8]):
        stream = Stream(replay_preset=pb2.CUSTOM, replay_id=replay)
        (event,) = stream.events(1)
        equal(decode(event)["ChangeEventHeader"]["changeType"], "UPDATE")
        stream.close()
    stream = Stream(replay_preset=pb2.EARLIEST)
    equal([decode(event)["ChangeEventHeader"]["changeType"] for event in stream.events(2)], ["CREATE", "UPDATE"])
    stream.close()


@statement("a stream stays silent without credit and goes on when asked for more")
def _():
    stream = Stream(replay_preset=pb2.EARLIEST, num_requested=1)
    stream.events(1)
    equal(stream.pending, 0)
    stream.ask(num_requested=1, topic_name=TOPIC)
    equal(decode(stream.events(1)[0])["ChangeEventHeader"]["changeType"], "UPDATE")
    stream.close()


def fault(call, code, suffix):
    error = raises(grpc.RpcError, call)
    trailers = dict(error.trailing_metadata())
    equal((error.code(), trailers["error-code"]), (code, f"sfdc.platform.eventbus.grpc.{suffix}"))
    assert trailers["rpc-id"] in error.details(), error.details()


@statement("every mistake has its status and its error code in the trailers")
def _():
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

    def first(**options):
        return lambda: next(Stream(**options).answers)

    fault(first(num_requested=0), invalid, "subscription.fetch.requested.events.invalid")
    fault(first(replay_preset=pb2.CUSTOM), invalid, "subscription.fetch.replayid.validation.failed")
    fault(first(replay_preset=pb2.CUSTOM, replay_id=b"nonsense"), invalid, "subscription.fetch.replayid.corrupted")
    fault(first(access="wrong"), grpc.StatusCode.UNAUTHENTICATED, "service.auth.error")
    other = pb2.TopicRequest(topic_name="/data/Nonsense__ChangeEvent")
    fault(lambda: STUB.GetTopic(other, metadata=metadata()), missing, "topic.not.found")
    fault(lambda: STUB.GetTopic(other), invalid, "service.auth.headers.invalid")
    schema = pb2.SchemaRequest(schema_id="nonsense")
    fault(lambda: STUB.GetSchema(schema, metadata=metadata()), missing, "schema.validation.failed")
    publish = pb2.PublishRequest(topic_name=TOPIC)
    fault(lambda: STUB.Publish(publish, metadata=metadata()), grpc.StatusCode.PERMISSION_DENIED, "topic.meta.permission")


@statement("an expired replay id is an error, after which EARLIEST works")
def _():
    control("POST", "/salesforce/forget-change-events")
    call = Stream(replay_preset=pb2.CUSTOM, replay_id=made["replay"])
    fault(lambda: next(call.answers), grpc.StatusCode.INVALID_ARGUMENT, "subscription.fetch.replayid.corrupted")
    stream = Stream(replay_preset=pb2.EARLIEST)
    stream.answers.initial_metadata()
    timer = threading.Timer(0, lambda: control("DELETE", f"{RECORDS}/{made['id']}"))
    timer.start()
    equal(decode(stream.events(1)[0])["ChangeEventHeader"]["changeType"], "DELETE")
    stream.close()


@statement("an unknown method is UNIMPLEMENTED, and the connection lives on")
def _():
    unknown = CHANNEL.unary_unary("/eventbus.v1.PubSub/Nonsense")
    equal(raises(grpc.RpcError, unknown, b"").code(), grpc.StatusCode.UNIMPLEMENTED)
    elsewhere = CHANNEL.unary_unary("/nonsense.Service/Call")
    equal(raises(grpc.RpcError, elsewhere, b"").code(), grpc.StatusCode.UNIMPLEMENTED)
    garbage = CHANNEL.unary_unary("/eventbus.v1.PubSub/GetTopic")
    assert raises(grpc.RpcError, garbage, b"\xff\xff\xff", metadata=metadata()).code() != grpc.StatusCode.UNAVAILABLE
    STUB.GetTopic(pb2.TopicRequest(topic_name=TOPIC), metadata=metadata())


run()
