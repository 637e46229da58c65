// Event Hubs through a plain AMQP 1.0 client that knows nothing of Event Hubs.
//
// package: rhea

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import rhea from "rhea";
import { eventually, hub, run, statement } from "./sandbox.mjs";

const key = /SharedAccessKey=([^;]+)/.exec(hub.connection_string)[1];
const events = (partition) => `${hub.hub}/ConsumerGroups/${hub.consumer_group}/Partitions/${partition}`;

function signature(secret = key) {
  const audience = encodeURIComponent(`amqp://${hub.host}/${hub.hub}`);
  const expiry = Math.floor(Date.now() / 1000) + 600;
  const mac = createHmac("sha256", secret).update(`${audience}\n${expiry}`).digest("base64");
  return `SharedAccessSignature sr=${audience}&sig=${encodeURIComponent(mac)}&se=${expiry}&skn=RootManageSharedAccessKey`;
}

/** Opens a connection and, unless told otherwise, shows its token to the hub's claims-based security. */
async function connect({ token = signature(), tls = false } = {}) {
  const container = rhea.create_container();
  const connection = container.connect({
    host: hub.host,
    port: tls ? hub.amqps_port : hub.amqp_port,
    transport: tls ? "tls" : undefined,
    ca: undefined,
    username: "anonymous",
    reconnect: false,
  });
  const seen = { messages: [], errors: [], connection };
  for (const kind of ["connection_error", "session_error", "sender_error", "receiver_error", "disconnected"]) {
    connection.on(kind, (context) => seen.errors.push([kind, context[kind.split("_")[0]]?.error]));
  }
  await new Promise((open, fail) => {
    connection.once("connection_open", open);
    connection.once("disconnected", (context) => fail(context.error ?? new Error("disconnected")));
  });
  if (token) assert.equal((await claim(connection, token)).application_properties["status-code"], 202);
  return seen;
}

let calls = 0;

/** Calls a request-and-answer node; the answer comes back on a link of its own. */
function call(connection, node, message) {
  return new Promise((answer, fail) => {
    calls += 1;
    const reply = `reply-${calls}`;
    const receiver = connection.open_receiver({ source: node, target: reply });
    receiver.on("message", (context) => answer(context.message));
    receiver.on("receiver_error", (context) => fail(context.receiver.error));
    const sender = connection.open_sender({ target: node });
    sender.on("sender_error", (context) => fail(context.sender.error));
    sender.once("sendable", () => sender.send({ message_id: "request-1", reply_to: reply, ...message }));
  });
}

const claim = (connection, token) =>
  call(connection, "$cbs", {
    application_properties: { operation: "put-token", type: "servicebus.windows.net:sastoken", name: `amqp://${hub.host}/${hub.hub}` },
    body: token,
  });

const selector = (text) => ({
  "apache.org:selector-filter:string": rhea.types.wrap_described(text, "apache.org:selector-filter:string"),
});

function send(connection, target, message) {
  return new Promise((settled) => {
    const sender = connection.open_sender({ target });
    for (const outcome of ["accepted", "rejected", "sender_error"]) {
      sender.on(outcome, (context) => settled([outcome, context.delivery?.remote_state?.error ?? sender.error]));
    }
    sender.once("sendable", () => sender.send(message));
  });
}

function receive(connection, partition, filter, options = {}) {
  const messages = [];
  const receiver = connection.open_receiver({
    source: { address: events(partition), filter: filter && selector(filter) },
    ...options,
  });
  receiver.on("message", (context) => messages.push(context.message));
  return { messages, receiver };
}

statement("a shared access signature is accepted by claims-based security, a wrong one is 401", async () => {
  const { connection } = await connect({ token: null });
  assert.equal((await claim(connection, signature())).application_properties["status-code"], 202);
  connection.close();
  const other = await connect({ token: null });
  assert.equal((await claim(other.connection, signature("wrong"))).application_properties["status-code"], 401);
  other.connection.close();
});

statement("without a token a link is refused by a detach with unauthorized-access", async () => {
  const { connection } = await connect({ token: null });
  const [outcome, error] = await send(connection, hub.hub, { body: "x" });
  assert.deepEqual([outcome, error.condition], ["sender_error", "amqp:unauthorized-access"]);
  connection.close();
});

statement("the management node tells the hub and its partitions, and 404 for an unknown one", async () => {
  const { connection } = await connect();
  const read = (type, more = {}) =>
    call(connection, "$management", {
      application_properties: { operation: "READ", type, name: hub.hub, security_token: signature(), ...more },
    });
  const about = await read("com.microsoft:eventhub");
  assert.equal(about.application_properties["status-code"], 200);
  assert.deepEqual([about.body.name, about.body.partition_count], [hub.hub, hub.partitions]);
  const partition = await read("com.microsoft:partition", { partition: "1" });
  assert.equal(partition.body.last_enqueued_sequence_number, -1);
  assert.equal((await read("com.microsoft:partition", { partition: "77" })).application_properties["status-code"], 404);
  connection.close();
});

statement("a message of any body is accepted, and comes back with sequence number, offset and time", async () => {
  const { connection } = await connect();
  const target = `${hub.hub}/Partitions/1`;
  assert.deepEqual((await send(connection, target, { body: "value", application_properties: { colour: "green" } }))[0], "accepted");
  assert.deepEqual((await send(connection, target, { body: rhea.message.data_section(Buffer.from("data")) }))[0], "accepted");
  const { messages } = receive(connection, 1, "amqp.annotation.x-opt-offset > '-1'");
  await eventually("two messages", () => messages.length >= 2);
  const [first, second] = messages;
  assert.deepEqual([first.body, first.application_properties.colour], ["value", "green"]);
  assert.equal(second.body.content.toString(), "data");
  assert.deepEqual(messages.map((message) => message.message_annotations["x-opt-sequence-number"]), [0, 1]);
  assert.equal(typeof first.message_annotations["x-opt-offset"], "string");
  assert.ok(first.message_annotations["x-opt-enqueued-time"] instanceof Date);
  connection.close();
});

statement("receiving keeps to the credit given and starts where the filter says", async () => {
  const { connection } = await connect();
  const { messages, receiver } = receive(connection, 1, "amqp.annotation.x-opt-sequence-number > '0'", { credit_window: 0 });
  await new Promise((open) => receiver.once("receiver_open", open));
  assert.deepEqual(messages, []);
  receiver.add_credit(1);
  await eventually("one message", () => messages.length === 1);
  assert.equal(messages[0].message_annotations["x-opt-sequence-number"], 1);
  connection.close();
});

statement("a partition key routes a message and stays on it", async () => {
  const { connection } = await connect();
  const message = { body: "keyed", message_annotations: { "x-opt-partition-key": "beta" } };
  assert.equal((await send(connection, hub.hub, message))[0], "accepted");
  const { messages } = receive(connection, 3, "amqp.annotation.x-opt-offset > '-1'");
  await eventually("the message", () => messages.length >= 1);
  assert.deepEqual([messages[0].body, messages[0].message_annotations["x-opt-partition-key"]], ["keyed", "beta"]);
  connection.close();
});

statement("unknown nodes, partitions, groups and filters detach the link with a reason and leave the connection open", async () => {
  const { connection } = await connect();
  const attach = (source) =>
    new Promise((refused, fail) => {
      const receiver = connection.open_receiver({ source });
      receiver.once("receiver_error", () => refused(receiver.error.condition));
      receiver.once("message", () => fail(new Error("a message")));
    });
  assert.equal(await attach("nowhere"), "amqp:not-found");
  assert.equal(await attach(`${hub.hub}/ConsumerGroups/nobody/Partitions/0`), "amqp:not-found");
  assert.equal(await attach(events(77)), "com.microsoft:argument-out-of-range");
  assert.match(await attach({ address: events(0), filter: selector("nonsense ~ 3") }), /^amqp:|^com.microsoft:/);
  const about = await call(connection, "$management", {
    application_properties: { operation: "READ", type: "com.microsoft:eventhub", name: hub.hub, security_token: signature() },
  });
  assert.equal(about.application_properties["status-code"], 200);
  connection.close();
});

statement("over TLS the same works", async () => {
  const { connection } = await connect({ tls: true });
  assert.equal((await send(connection, `${hub.hub}/Partitions/0`, { body: "tls" }))[0], "accepted");
  connection.close();
});

await run();
