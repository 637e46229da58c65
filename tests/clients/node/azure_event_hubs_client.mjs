// Event Hubs through Microsoft's own Node client: plain with a shared key, and with a token of the directory.
//
// package: @azure/event-hubs

import assert from "node:assert/strict";
import { EventHubConsumerClient, EventHubProducerClient, earliestEventPosition, latestEventPosition } from "@azure/event-hubs";
import { eventually, hub, run, statement } from "./sandbox.mjs";

const producer = () => new EventHubProducerClient(hub.connection_string, hub.hub);
const consumer = () => new EventHubConsumerClient(hub.consumer_group, hub.connection_string, hub.hub);

/** Receives until `count` events came; `whenOpen` runs once every partition is open. */
async function read(count, { partition, position, whenOpen }) {
  const client = consumer();
  const found = [];
  const opened = new Set();
  const problems = [];
  const handlers = {
    processInitialize: async (context) => void opened.add(context.partitionId),
    processEvents: async (events, context) => {
      for (const event of events) found.push({ partition: context.partitionId, event });
    },
    processError: async (error) => void problems.push(error),
  };
  const options = { startPosition: position, maxWaitTimeInSeconds: 1 };
  const subscription = partition ? client.subscribe(partition, handlers, options) : client.subscribe(handlers, options);
  try {
    if (whenOpen) {
      await eventually("opening of the partitions", () => opened.size >= (partition ? 1 : hub.partitions));
      // The link is attached after the handler ran; what is sent at latest must come after that.
      await whenOpen();
    }
    await eventually(`event number ${count}`, () => found.length >= count || problems.length);
    if (problems.length) throw problems[0];
  } finally {
    await subscription.close();
    await client.close();
  }
  return found;
}

const bodies = (found) => found.map(({ event }) => event.body);

statement("the properties of the hub and of a partition are told", async () => {
  const client = producer();
  const properties = await client.getEventHubProperties();
  assert.equal(properties.name, hub.hub);
  assert.equal(properties.partitionIds.length, hub.partitions);
  assert.ok(properties.createdOn instanceof Date);
  const partition = await client.getPartitionProperties("1");
  assert.deepEqual([partition.isEmpty, partition.lastEnqueuedSequenceNumber], [true, -1]);
  await client.close();
});

statement("a partition key keeps events together, where the client's own mapper says", async () => {
  const client = producer();
  for (const [key, wanted] of [["alpha", "1"], ["beta", "3"], ["tenant-1/user-7", "0"]]) {
    await client.sendBatch([{ body: `one of ${key}` }, { body: `two of ${key}` }], { partitionKey: key });
    const found = await read(2, { partition: wanted, position: earliestEventPosition });
    assert.deepEqual(bodies(found), [`one of ${key}`, `two of ${key}`]);
    assert.equal(found[0].event.partitionKey, key);
  }
  await client.close();
});

statement("a batch carries texts, objects and properties", async () => {
  const client = producer();
  const batch = await client.createBatch({ partitionId: "2" });
  assert.ok(batch.tryAdd({ body: { subject: "Plan" }, properties: { colour: "green", count: 7 }, messageId: "m-1" }));
  assert.ok(batch.tryAdd({ body: "plain", contentType: "text/plain" }));
  assert.ok(!batch.tryAdd({ body: "x".repeat(1_200_000) }));
  await client.sendBatch(batch);
  const [first, second] = (await read(2, { partition: "2", position: earliestEventPosition })).map(({ event }) => event);
  assert.deepEqual(first.body, { subject: "Plan" });
  assert.deepEqual([first.properties.colour, first.properties.count, first.messageId], ["green", 7, "m-1"]);
  assert.deepEqual([second.body, second.contentType, second.sequenceNumber], ["plain", "text/plain", 1]);
  assert.ok(second.enqueuedTimeUtc instanceof Date);
  await client.close();
});

statement("receiving starts after an offset, at a sequence number, and after a time", async () => {
  const [first] = await read(2, { partition: "2", position: earliestEventPosition });
  const after = await read(1, { partition: "2", position: { offset: first.event.offset } });
  assert.deepEqual(bodies(after), ["plain"]);
  const at = await read(2, { partition: "2", position: { sequenceNumber: 0, isInclusive: true } });
  assert.equal(at.length, 2);
  const early = await read(2, { partition: "2", position: { enqueuedOn: new Date(Date.now() - 3_600_000) } });
  assert.equal(early.length, 2);
});

statement("all partitions are read at once, and latest shows only what is sent afterwards", async () => {
  const everything = await read(8, { position: earliestEventPosition });
  assert.deepEqual(new Set(everything.map(({ partition }) => partition)), new Set(["0", "1", "2", "3"]));
  const sending = producer();
  let stop = false;
  const late = await read(1, {
    partition: "3",
    position: latestEventPosition,
    whenOpen: async () => {
      // Until one arrives: the client tells nobody when its link is attached.
      for (let number = 0; number < 3 && !stop; number += 1) {
        await sending.sendBatch([{ body: "late" }], { partitionId: "3" });
      }
    },
  });
  stop = true;
  await sending.close();
  assert.ok(bodies(late).every((body) => body === "late"), bodies(late));
});

statement("a wrong key and an unknown partition are refused", async () => {
  const wrong = hub.connection_string.replace("SharedAccessKey=", "SharedAccessKey=AAAA");
  const impostor = new EventHubProducerClient(wrong, hub.hub, { retryOptions: { maxRetries: 0 } });
  await assert.rejects(impostor.getEventHubProperties(), (error) => error.code === "UnauthorizedError");
  await impostor.close();
  const client = new EventHubProducerClient(hub.connection_string, hub.hub, { retryOptions: { maxRetries: 0 } });
  await assert.rejects(client.sendBatch([{ body: "x" }], { partitionId: "77" }), (error) => error.name === "MessagingError");
  await client.close();
});

await run();
