"""Event Hubs: properties, sending, receiving from every kind of position, plain and over TLS.

package: azure-eventhub
"""

import threading
from datetime import datetime, timedelta, timezone

from sandbox import CA, HUB, MICROSOFT, equal, eventually, raises, run, statement

from azure.core.exceptions import AzureError
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub.exceptions import AuthenticationError, ConnectError, EventHubError
from azure.identity import ClientSecretCredential

# Positions of the events that one statement leaves for the next.
sent = {}


def producer(**options):
    return EventHubProducerClient.from_connection_string(HUB["connection_string"], eventhub_name=HUB["hub"], **options)


def consumer(**options):
    return EventHubConsumerClient.from_connection_string(
        HUB["connection_string"], HUB["consumer_group"], eventhub_name=HUB["hub"], **options
    )


def read(count, client=None, started=None, **where):
    """Receives `count` events; `started` is called once the partitions are open."""
    client = client or consumer()
    found, opened, enough = [], set(), threading.Event()

    def on_event(_partition, event):
        if event is not None:
            found.append((_partition.partition_id, event))
            if len(found) >= count:
                enough.set()

    def on_open(partition):
        opened.add(partition.partition_id)

    problems = []

    def on_error(_partition, error):
        problems.append(error)
        enough.set()

    thread = threading.Thread(
        target=client.receive,
        kwargs={
            "on_event": on_event,
            "on_partition_initialize": on_open,
            "on_error": on_error,
            "max_wait_time": 0.2,
            **where,
        },
        daemon=True,
    )
    thread.start()
    try:
        if started:
            wanted = 1 if "partition_id" in where else HUB["partitions"]
            eventually("opening of the partitions", lambda: len(opened) >= wanted)
            started()
        assert enough.wait(30), f"{len(found)} of {count} events came"
    finally:
        client.close()
        thread.join(10)
    assert not problems, problems
    return found


def bodies(found):
    return [event.body_as_str() for _, event in found]


@statement("the properties of the hub name it and its partitions")
def _():
    with consumer() as client:
        properties = client.get_eventhub_properties()
        equal(properties["eventhub_name"], HUB["hub"])
        equal(properties["partition_ids"], [str(number) for number in range(HUB["partitions"])])
        assert properties["created_at"] <= datetime.now(timezone.utc), properties
        equal(client.get_partition_ids(), properties["partition_ids"])


@statement("an empty partition says so")
def _():
    with consumer() as client:
        properties = client.get_partition_properties("0")
        equal(properties["is_empty"], True)
        equal(properties["last_enqueued_sequence_number"], -1)


@statement("events with one partition key land in one partition, in order, with their key")
def _():
    with producer() as client:
        client.send_batch([EventData(f"k{number}") for number in range(5)], partition_key="tenant-1/user-7")
    # The vendor's hash puts this key into the first of four partitions.
    found = read(5, partition_id="0", starting_position="-1")
    equal(bodies(found), ["k0", "k1", "k2", "k3", "k4"])
    for _, event in found:
        equal(event.partition_key, b"tenant-1/user-7", "partition key")


@statement("a batch of several kinds of events comes back whole, with its application properties")
def _():
    with producer() as client:
        batch = client.create_batch(partition_id="2")
        plain = EventData("plain")
        dressed = EventData(b"\x00\xffbinary")
        dressed.properties = {"colour": "green", "count": 7}
        dressed.content_type = "application/json"
        dressed.correlation_id = "c-1"
        dressed.message_id = "m-1"
        for event in (plain, dressed):
            batch.add(event)
        client.send_batch(batch)
    (_, first), (_, second) = read(2, partition_id="2", starting_position="-1")
    equal(first.body_as_str(), "plain")
    equal(b"".join(second.body), b"\x00\xffbinary")
    properties = {
        key.decode() if isinstance(key, bytes) else key: value.decode() if isinstance(value, bytes) else value
        for key, value in second.properties.items()
    }
    equal(properties, {"colour": "green", "count": 7})
    equal((second.content_type, second.correlation_id, second.message_id), ("application/json", "c-1", "m-1"))
    equal((first.sequence_number, second.sequence_number), (0, 1))
    assert first.enqueued_time <= second.enqueued_time <= datetime.now(timezone.utc)


@statement("a batch refuses events beyond its size, and what fits is accepted")
def _():
    with producer() as client:
        batch = client.create_batch(partition_id="3", max_size_in_bytes=4096)
        added = 0
        while True:
            try:
                batch.add(EventData("x" * 500))
                added += 1
            except ValueError:
                break
        assert 5 <= added <= 8, added
        client.send_batch(batch)
    equal(len(read(added, partition_id="3", starting_position="-1")), added)


@statement("an event larger than a message may be is refused by the client, which knows the limit from the link")
def _():
    with producer() as client:
        raises((ValueError, EventHubError), client.send_batch, [EventData("x" * 1_200_000)])


@statement("receiving starts after an offset, at one inclusively, after a sequence number, after a time")
def _():
    everything = read(5, partition_id="0", starting_position="-1")
    offset = everything[1][1].offset
    equal(bodies(read(3, partition_id="0", starting_position=offset)), ["k2", "k3", "k4"])
    inclusive = read(4, partition_id="0", starting_position=offset, starting_position_inclusive=True)
    equal(bodies(inclusive), ["k1", "k2", "k3", "k4"])
    number = everything[2][1].sequence_number
    equal(bodies(read(2, partition_id="0", starting_position=number)), ["k3", "k4"])
    early = datetime.now(timezone.utc) - timedelta(hours=1)
    equal(len(read(5, partition_id="0", starting_position=early)), 5)


@statement("receiving from latest shows only what is sent afterwards")
def _():
    def send():
        with producer() as client:
            client.send_batch([EventData("new")], partition_id="0")

    equal(bodies(read(1, partition_id="0", starting_position="@latest", started=send))[:1], ["new"])


@statement("one consumer reads all partitions at once, each from its own position, with partition events")
def _():
    with consumer() as client:
        last = client.get_partition_properties("0")["last_enqueued_offset"]
    positions = {"0": last, "1": "@latest", "2": "-1", "3": "@latest"}

    def send():
        with producer() as client:
            client.send_batch([EventData("late")], partition_id="1")

    found = read(3, starting_position=positions, started=send)
    equal(sorted(partition for partition, _ in found), ["1", "2", "2"], "partitions")
    equal([event.body_as_str() for partition, event in found if partition == "1"], ["late"])


@statement("partition events are told, and the last enqueued event is told with each one when asked for")
def _():
    seen, closed, enough = [], [], threading.Event()

    def on_event(partition, event):
        if event is not None and not seen:
            seen.append(partition.last_enqueued_event_properties)
            enough.set()

    client = consumer()
    thread = threading.Thread(
        target=client.receive,
        kwargs={
            "on_event": on_event,
            "partition_id": "2",
            "starting_position": "-1",
            "track_last_enqueued_event_properties": True,
            "on_partition_close": lambda partition, reason: closed.append((partition.partition_id, reason.name)),
        },
        daemon=True,
    )
    thread.start()
    assert enough.wait(20), "no event"
    client.close()
    thread.join(10)
    equal(closed, [("2", "SHUTDOWN")])
    with consumer() as other:
        newest = other.get_partition_properties("2")
    equal(seen[0]["sequence_number"], newest["last_enqueued_sequence_number"], "last sequence number")
    equal(seen[0]["offset"], newest["last_enqueued_offset"], "last offset")


@statement("a receiver with a higher owner level takes the partition, and the loser is told why")
def _():
    told, opened = [], threading.Event()
    loser = consumer()
    thread = threading.Thread(
        target=loser.receive,
        kwargs={
            "on_event": lambda _partition, _event: opened.set(),
            "on_error": lambda _partition, error: told.append(error),
            "partition_id": "2",
            "owner_level": 1,
            "starting_position": "-1",
        },
        daemon=True,
    )
    thread.start()
    assert opened.wait(20), "the first receiver got nothing"
    equal(len(read(2, partition_id="2", owner_level=2, starting_position="-1")), 2)
    eventually("word to the loser", lambda: told)
    assert "higher epoch" in str(told[0]), told[0]
    loser.close()
    thread.join(10)


@statement("an unknown partition, a wrong key and an unknown hub are refused as the service does")
def _():
    with producer(retry_total=0) as client:
        raises(EventHubError, client.send_batch, [EventData("x")], partition_id="77")
    with consumer(retry_total=0) as client:
        raises(EventHubError, client.get_partition_properties, "77")
    wrong = HUB["connection_string"].replace("SharedAccessKey=", "SharedAccessKey=AAAA")
    with EventHubProducerClient.from_connection_string(wrong, eventhub_name=HUB["hub"], retry_total=0) as client:
        raises(AuthenticationError, client.get_eventhub_properties)
    with EventHubProducerClient.from_connection_string(
        HUB["connection_string"], eventhub_name="nowhere", retry_total=0
    ) as client:
        raises((ConnectError, EventHubError), client.get_eventhub_properties)


def over_tls(kind, credential, **options):
    address = f"sb://{HUB['host']}:{HUB['amqps_port']}"
    return kind(
        fully_qualified_namespace=HUB["host"],
        eventhub_name=HUB["hub"],
        credential=credential,
        custom_endpoint_address=address,
        connection_verify=CA,
        transport_type=TransportType.Amqp,
        **options,
    )


@statement("over TLS with a token of the directory: properties, sending and receiving")
def _():
    credential = ClientSecretCredential(
        MICROSOFT["tenant_id"],
        MICROSOFT["client_id"],
        MICROSOFT["client_secret"],
        authority=MICROSOFT["authority_https"],
        disable_instance_discovery=True,
    )
    with over_tls(EventHubProducerClient, credential) as client:
        equal(client.get_eventhub_properties()["eventhub_name"], HUB["hub"])
        client.send_batch([EventData("over TLS")], partition_id="1")
    reader = over_tls(EventHubConsumerClient, credential, consumer_group=HUB["consumer_group"])
    assert "over TLS" in bodies(read(2, client=reader, partition_id="1", starting_position="-1"))


@statement("over TLS with a wrong secret: the directory's reason reaches the caller")
def _():
    credential = ClientSecretCredential(
        MICROSOFT["tenant_id"],
        MICROSOFT["client_id"],
        "wrong",
        authority=MICROSOFT["authority_https"],
        disable_instance_discovery=True,
    )
    with over_tls(EventHubProducerClient, credential, retry_total=0) as client:
        assert "AADSTS7000215" in str(raises((AzureError, EventHubError), client.get_eventhub_properties))


run()
