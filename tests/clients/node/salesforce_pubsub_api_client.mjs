// Change events of Salesforce over the Pub/Sub API, through the best-known Node client.
//
// package: salesforce-pubsub-api-client
// sandbox: --speed 60
//
// At sixty times real time the keepalive of 270 s comes after 4.5 s. The client needs `underscore` installed beside it.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import PubSubApiClient from "salesforce-pubsub-api-client";
import { control, eventually, mailboxes, run, salesforce, statement, switches } from "./sandbox.mjs";

const TOPIC = "/data/EventChangeEvent";
const ada = mailboxes[0];
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const records = `/people/${ada.address}/salesforce/events`;

async function connect(changes = {}) {
  const client = new PubSubApiClient(
    {
      authType: "oauth-client-credentials",
      loginUrl: salesforce.login_http,
      clientId: salesforce.client_id,
      clientSecret: salesforce.client_secret,
      pubSubEndpoint: salesforce.pubsub,
      // The client brings its own list of authorities and cannot be given another; this is its own switch for that.
      rejectUnauthorizedSsl: false,
      ...changes,
    },
    quiet,
  );
  await client.connect();
  return client;
}

/** Subscribes by one of the client's methods and keeps all that it is told. */
async function listen(method, ...more) {
  const client = await connect();
  const told = { events: [], errors: [], kinds: [], ended: false, close: () => client.close() };
  await client[method](
    TOPIC,
    (_subscription, kind, data) => {
      told.kinds.push(kind);
      if (kind === "event") told.events.push(data);
      if (kind === "error") told.errors.push(data);
      if (kind === "end") told.ended = true;
    },
    ...more,
  );
  return told;
}

/** Subscribes at LATEST, and edits until the stream shows it: the client does not tell when the server has its request. */
async function listenFromNow() {
  const told = await listen("subscribe", 100);
  let probes = 0;
  await eventually("the first event", async () => {
    await create({ Subject: "probe", StartDateTime: "2027-03-05T09:00:00Z", DurationInMinutes: 15 });
    probes += 1;
    await pause(200);
    return told.events.length;
  });
  // The stream is ordered, so what is created now comes after all probes.
  const last = await create({ Subject: "last probe", StartDateTime: "2027-03-05T09:00:00Z", DurationInMinutes: 15 });
  await eventually("the last probe", () => told.events.some((event) => header(event).recordIds[0] === last));
  assert.ok(told.events.length <= probes + 1);
  told.events.length = 0;
  return told;
}

const create = async (fields) => (await control("POST", records, fields)).id;
const change = (id, fields) => control("PATCH", `${records}/${id}`, fields);
const header = (event) => event.payload.ChangeEventHeader;
const some = (told, count) => eventually(`event number ${count}`, () => told.events.length >= count);
/** Sorts by place in the stream: while it fetches a schema, the client lets later events overtake earlier ones. */
const inOrder = (events) => [...events].sort((one, other) => one.replayId - other.replayId);
/** Waits for that many events of one record, and returns their change types. */
async function story(told, id, count) {
  const about = () => told.events.filter((event) => header(event).recordIds[0] === id);
  await eventually(`event number ${count} of ${id}`, () => about().length >= count);
  return inOrder(about()).map((event) => header(event).changeType);
}
let made;
// Replay id of its creation.
let start;

statement("LATEST shows a new record with all its values and a complete header", async () => {
  const told = await listenFromNow();
  made = await create({
    Subject: "Call",
    Location: "Room 1",
    Description: "words",
    StartDateTime: "2027-03-01T09:00:00Z",
    DurationInMinutes: 30,
  });
  await some(told, 1);
  told.close();
  assert.equal(told.events.length, 1);
  const { payload } = told.events[0];
  assert.equal(payload.Subject, "Call");
  assert.equal(payload.Location, "Room 1");
  assert.equal(payload.DurationInMinutes, 30);
  assert.equal(payload.ActivityDateTime, Date.parse("2027-03-01T09:00:00Z"));
  assert.equal(payload.OwnerId, ada.salesforce_user_id);
  assert.ok(!("StartDateTime" in payload));
  const { entityName, recordIds, changeType, commitUser, changedFields, transactionKey } = header(told.events[0]);
  assert.deepEqual([entityName, recordIds, changeType], ["Event", [made], "CREATE"]);
  assert.deepEqual([commitUser, changedFields], [ada.salesforce_user_id, []]);
  assert.match(transactionKey, /^[0-9a-f]{8}-/);
  start = told.events[0].replayId;
  assert.ok(Number.isSafeInteger(start));
});

statement("an update names exactly the changed and the nulled fields, and leaves the others null", async () => {
  const told = await listenFromNow();
  await change(made, { Subject: "Longer call", Location: null, DurationInMinutes: 60 });
  await some(told, 1);
  told.close();
  const [event] = told.events;
  const { changeType, changedFields, nulledFields } = header(event);
  assert.equal(changeType, "UPDATE");
  assert.deepEqual(new Set(changedFields), new Set(["Subject", "Location", "DurationInMinutes", "LastModifiedDate"]));
  assert.deepEqual(nulledFields, ["Location"]);
  assert.deepEqual([event.payload.Subject, event.payload.DurationInMinutes], ["Longer call", 60]);
  assert.deepEqual([event.payload.Location, event.payload.Description, event.payload.OwnerId], [null, null, null]);
  assert.ok(event.payload.LastModifiedDate > 0);
});

statement("a deletion carries the id alone", async () => {
  const told = await listenFromNow();
  await control("DELETE", `${records}/${made}`);
  await some(told, 1);
  told.close();
  assert.deepEqual([header(told.events[0]).changeType, header(told.events[0]).recordIds], ["DELETE", [made]]);
  assert.equal(told.events[0].payload.Subject, null);
});

statement("EARLIEST shows everything that is retained", async () => {
  const told = await listen("subscribeFromEarliestEvent", 100);
  assert.deepEqual(await story(told, made, 3), ["CREATE", "UPDATE", "DELETE"]);
  told.close();
});

statement("CUSTOM shows what came after the replay id, and goes on with what comes", async () => {
  const told = await listen("subscribeFromReplayId", 100, start);
  assert.deepEqual(await story(told, made, 2), ["UPDATE", "DELETE"]);
  assert.ok(told.events.every((event) => event.replayId > start));
  const next = await create({ Subject: "Next", StartDateTime: "2027-03-02T09:00:00Z", DurationInMinutes: 15 });
  assert.deepEqual(await story(told, next, 1), ["CREATE"]);
  told.close();
});

statement("the client asks again when its credit is used up, and is told when it has all it asked for", async () => {
  const told = await listen("subscribeFromEarliestEvent", 2);
  await eventually("the last event of the request", () => told.kinds.includes("lastEvent"));
  assert.equal(told.events.length, 2);
  told.close();
  const endless = await listen("subscribeFromEarliestEvent", null);
  // More than the 100 that a subscription may have outstanding.
  const rows = [];
  for (let number = 0; number < 120; number += 1) {
    rows.push(await create({ Subject: `Row ${number}`, StartDateTime: "2027-03-02T09:00:00Z", DurationInMinutes: 15 }));
  }
  await story(endless, rows.at(-1), 1);
  const seen = () => inOrder(endless.events).map((event) => header(event).recordIds[0]).filter((id) => rows.includes(id));
  await eventually("all rows", () => seen().length >= rows.length);
  assert.deepEqual(seen(), rows);
  endless.close();
});

statement("without events the server speaks up by a keepalive with a newer replay id", async () => {
  const told = await listen("subscribe", 5);
  await eventually("a keepalive", () => told.kinds.includes("grpcKeepAlive"), 20);
  assert.deepEqual(told.events, []);
  assert.deepEqual(told.errors, []);
  told.close();
});

statement("an edit made through the REST API names its origin", async () => {
  const token = await (
    await fetch(`${salesforce.login_http}/services/oauth2/token`, {
      method: "POST",
      body: new URLSearchParams({
        grant_type: "client_credentials",
        client_id: salesforce.client_id,
        client_secret: salesforce.client_secret,
      }),
    })
  ).json();
  const told = await listenFromNow();
  const answer = await fetch(`${salesforce.instance_http}/services/data/v66.0/sobjects/Event`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token.access_token}`,
      "content-type": "application/json",
      "sforce-call-options": "client=clients/1",
    },
    body: JSON.stringify({ Subject: "Rest", StartDateTime: "2027-03-02T09:00:00Z", DurationInMinutes: 15 }),
  });
  assert.equal(answer.status, 201);
  await some(told, 1);
  told.close();
  assert.equal(header(told.events[0]).changeOrigin, "com/salesforce/api/rest/66.0;client=clients/1");
});

statement("an expired replay id ends the call with its error code in the trailers", async () => {
  await control("POST", "/salesforce/forget-change-events");
  const told = await listen("subscribeFromReplayId", 100, start);
  const error = await eventually("the error", () => told.errors[0]);
  told.close();
  assert.equal(error.code, 3);
  const [code] = error.metadata.get("error-code");
  assert.equal(code, "sfdc.platform.eventbus.grpc.subscription.fetch.replayid.corrupted");
  assert.ok(error.metadata.get("rpc-id")[0], "no rpc id");
});

statement("after that, EARLIEST and LATEST still work", async () => {
  const told = await listen("subscribeFromEarliestEvent", 100);
  await create({ Subject: "Afterwards", StartDateTime: "2027-03-02T09:00:00Z", DurationInMinutes: 15 });
  await some(told, 1);
  told.close();
  assert.equal(told.events[0].payload.Subject, "Afterwards");
});

statement("a stream that the server ends says so, and an unknown topic and a revoked token are errors", async () => {
  await switches({ salesforce_end_stream_next: 1 });
  const told = await listen("subscribe", 100);
  await eventually("the end of the stream", async () => {
    await create({ Subject: "Last", StartDateTime: "2027-03-02T09:00:00Z", DurationInMinutes: 15 });
    await pause(200);
    return told.ended;
  });
  const client = await connect();
  await assert.rejects(client.publish("/data/Nonsense__ChangeEvent", {}), (error) => /topic/i.test(`${error} ${error.cause}`));
  await switches({ salesforce_revoke_tokens: true });
  const errors = [];
  await client.subscribe(TOPIC, (_subscription, kind, data) => kind === "error" && errors.push(data), 10);
  const error = await eventually("the error", () => errors[0]);
  assert.equal(error.metadata.get("error-code")[0], "sfdc.platform.eventbus.grpc.service.auth.error");
  client.close();
});

statement("signing in by a signed assertion works, and a wrong secret is refused with the reason", async () => {
  const key = await import("node:fs").then((fs) => fs.readFileSync(salesforce.jwt_key_file, "utf8"));
  const client = await connect({
    authType: "oauth-jwt-bearer",
    username: ada.salesforce_username,
    privateKey: key,
    clientSecret: undefined,
  });
  client.close();
  await assert.rejects(connect({ clientSecret: "wrong" }), (error) => /invalid_client/.test(`${error} ${error.cause}`));
});

await run();
