// Microsoft Graph through Microsoft's own Node client, with a token of the directory from @azure/identity.
//
// package: @microsoft/microsoft-graph-client

import assert from "node:assert/strict";
import { ClientSecretCredential } from "@azure/identity";
import { BatchRequestContent, BatchResponseContent, Client, PageIterator } from "@microsoft/microsoft-graph-client";
import { TokenCredentialAuthenticationProvider } from "@microsoft/microsoft-graph-client/authProviders/azureTokenCredentials/index.js";
import { hub, mailboxes, microsoft, run, statement, switches } from "./sandbox.mjs";

const ada = mailboxes[0];
const events = `/users/${ada.address}/events`;
const window = "startDateTime=2027-03-01T00:00:00Z&endDateTime=2027-03-08T00:00:00Z";
let made;

function graph(secret = microsoft.client_secret) {
  const credential = new ClientSecretCredential(microsoft.tenant_id, microsoft.client_id, secret, {
    authorityHost: microsoft.authority_https,
    disableInstanceDiscovery: true,
  });
  const authProvider = new TokenCredentialAuthenticationProvider(credential, {
    scopes: ["https://graph.microsoft.com/.default"],
  });
  return Client.initWithMiddleware({
    authProvider,
    baseUrl: microsoft.graph_https.replace(/\/v1.0$/, "/"),
    customHosts: new Set([new URL(microsoft.graph_https).hostname]),
  });
}

const client = graph();
const meeting = (subject, day, hour, more = {}) => ({
  subject,
  start: { dateTime: `2027-03-0${day}T${String(hour).padStart(2, "0")}:00:00`, timeZone: "UTC" },
  end: { dateTime: `2027-03-0${day}T${String(hour + 1).padStart(2, "0")}:00:00`, timeZone: "UTC" },
  ...more,
});
const refused = (status, code) => (error) => {
  assert.deepEqual([error.statusCode, error.code], [status, code], `${error}`);
  assert.ok(error.requestId && error.message);
  return true;
};

statement("a token is fetched, users are listed and counted", async () => {
  const users = await client.api("/users").select(["id", "mail"]).top(2).count(true).get();
  assert.deepEqual(users.value.map((user) => user.mail), [ada.address, mailboxes[1].address]);
  assert.equal(users["@odata.count"], mailboxes.length);
  assert.ok(users["@odata.nextLink"].startsWith(microsoft.graph_https));
  await assert.rejects(graph("wrong").api("/users").get(), (error) => /AADSTS7000215/.test(error.message));
});

statement("a meeting is created, read in another zone, changed by etag, and 412 with a stale one", async () => {
  made = await client.api(events).header("Prefer", 'IdType="ImmutableId"').post(meeting("Plan", 1, 9));
  const shown = await client
    .api(`${events}/${made.id}`)
    .header("Prefer", 'outlook.timezone="Asia/Tokyo", IdType="ImmutableId"')
    .get();
  assert.deepEqual([shown.id, shown.start.dateTime], [made.id, "2027-03-01T18:00:00.0000000"]);
  const changed = await client.api(`${events}/${made.id}`).header("If-Match", made["@odata.etag"]).patch({ subject: "New" });
  assert.equal(changed.subject, "New");
  await assert.rejects(
    client.api(`${events}/${made.id}`).header("If-Match", made["@odata.etag"]).patch({ subject: "Lost" }),
    refused(412, "ErrorIrresolvableConflict"),
  );
});

statement("the page iterator walks a list of several pages", async () => {
  for (let number = 0; number < 12; number += 1) await client.api(events).post(meeting(`Row ${number}`, 2, number));
  const first = await client.api(events).filter("startsWith(subject,'Row')").orderby("start/dateTime").top(5).get();
  const subjects = [];
  await new PageIterator(client, first, (event) => subjects.push(event.subject) > 0).iterate();
  assert.deepEqual(subjects, Array.from({ length: 12 }, (_, number) => `Row ${number}`));
});

statement("a calendar view is read, and its delta link tells a change and a removal", async () => {
  const view = await client.api(`/users/${ada.address}/calendarView?${window}`).top(50).get();
  assert.equal(view.value.length, 13);
  let page = await client.api(`/users/${ada.address}/calendarView/delta?${window}`).get();
  let told = page.value.length;
  while (page["@odata.nextLink"]) {
    page = await client.api(page["@odata.nextLink"]).get();
    told += page.value.length;
  }
  assert.equal(told, 13);
  const gone = view.value.find((event) => event.subject === "Row 3");
  await client.api(`${events}/${gone.id}`).delete();
  page = await client.api(page["@odata.deltaLink"]).get();
  assert.deepEqual(page.value.map((item) => [item.id, item["@removed"].reason]), [[gone.id, "deleted"]]);
});

statement("a batch answers each of its calls, those with a body too", async () => {
  const address = (path) => `https://graph.microsoft.com/${path}`;
  const content = new BatchRequestContent([
    { id: "1", request: new Request(address(events.slice(1)), { method: "POST", body: JSON.stringify(meeting("Batched", 4, 9)), headers: { "content-type": "application/json" } }) },
    { id: "2", request: new Request(address("users/nobody@contoso.example")), dependsOn: ["1"] },
    { id: "3", request: new Request(address(`users/${ada.address}`)), dependsOn: ["2"] },
  ]);
  const answers = new BatchResponseContent(await client.api("/$batch").post(await content.getContent()));
  assert.deepEqual(["1", "2", "3"].map((id) => answers.getResponseById(id).status), [201, 404, 424]);
  assert.equal((await answers.getResponseById("1").json()).subject, "Batched");
});

statement("a batched address that names host and version is refused as Graph does", async () => {
  const requests = [{ id: "1", method: "GET", url: `/v1.0/users/${ada.address}` }];
  const { responses } = await client.api("/$batch").post({ requests });
  assert.deepEqual([responses[0].status, responses[0].body.error.code], [400, "BadRequest"]);
});

statement("a subscription to the hub is created, renewed and deleted", async () => {
  const at = (hours) => new Date(Date.now() + hours * 3_600_000).toISOString();
  const subscription = await client.api("/subscriptions").post({
    changeType: "created,updated,deleted",
    notificationUrl: hub.notification_url,
    resource: `users/${ada.user_id}/events`,
    expirationDateTime: at(2),
    clientState: "s3cret",
  });
  const renewed = await client.api(`/subscriptions/${subscription.id}`).patch({ expirationDateTime: at(20) });
  assert.ok(renewed.expirationDateTime > subscription.expirationDateTime);
  await client.api(`/subscriptions/${subscription.id}`).delete();
  await assert.rejects(client.api(`/subscriptions/${subscription.id}`).get(), refused(404, "ResourceNotFound"));
});

statement("the client's own retry gets past 429 and 503", async () => {
  await switches({ outlook_throttle_next: 1, outlook_unavailable_next: 1 });
  assert.equal((await client.api(`/users/${ada.address}/calendar`).get()).name, "Calendar");
});

statement("unknown paths, methods, mailboxes and ids have Graph's own errors", async () => {
  await assert.rejects(client.api("/nonsense").get(), refused(400, "BadRequest"));
  await assert.rejects(client.api(`/users/${ada.address}/nonsense`).get(), refused(400, "BadRequest"));
  await assert.rejects(client.api("/users/nobody@contoso.example/events").get(), refused(404, "ErrorInvalidUser"));
  await assert.rejects(client.api(`${events}/nonsense`).get(), refused(400, "ErrorInvalidIdMalformed"));
  await assert.rejects(client.api("/me/events").get(), refused(400, "BadRequest"));
  await client.api(`${events}/${made.id}`).delete();
  await assert.rejects(client.api(`${events}/${made.id}`).get(), refused(404, "ErrorItemNotFound"));
});

await run();
