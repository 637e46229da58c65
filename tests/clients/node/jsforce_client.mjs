// Salesforce REST through the best-known Node client.
//
// package: jsforce

import assert from "node:assert/strict";
import jsforce from "jsforce";
import { mailboxes, run, salesforce, statement, switches } from "./sandbox.mjs";

const ada = mailboxes[0];
const StartDateTime = "2027-03-01T09:00:00Z";
let connection;

async function signIn(changes = {}) {
  const fresh = new jsforce.Connection({
    instanceUrl: salesforce.instance_https,
    loginUrl: salesforce.login_https,
    version: "66.0",
    oauth2: { clientId: salesforce.client_id, clientSecret: salesforce.client_secret, loginUrl: salesforce.login_https, ...changes },
    callOptions: { client: "clients/1" },
  });
  await fresh.authorize({ grant_type: "client_credentials" });
  return fresh;
}

const refused = (code) => (error) => {
  assert.equal(error.errorCode ?? error.name, code, `${error}`);
  assert.ok(error.message);
  return true;
};

statement("client credentials sign in, and the identity is told", async () => {
  connection = await signIn();
  assert.equal(connection.userInfo.organizationId, salesforce.org_id);
  assert.equal(connection.userInfo.id, salesforce.user_id);
  const identity = await connection.identity();
  assert.equal(identity.username, salesforce.username);
  await assert.rejects(signIn({ clientSecret: "wrong" }), refused("invalid_client"));
});

statement("records are created one by one and many at a time, read, changed and deleted", async () => {
  const events = connection.sobject("Event");
  const made = await events.create({ Subject: "Call", StartDateTime, DurationInMinutes: 30, OwnerId: ada.salesforce_user_id });
  assert.ok(made.success);
  assert.equal((await events.retrieve(made.id)).OwnerId, ada.salesforce_user_id);
  assert.ok((await events.update({ Id: made.id, Subject: "Longer call", Location: null })).success);
  assert.equal((await events.retrieve(made.id)).Subject, "Longer call");
  const rows = Array.from({ length: 210 }, (_, number) => ({
    Subject: `Row ${String(number).padStart(3, "0")}`,
    StartDateTime,
    DurationInMinutes: 30,
  }));
  const many = await events.create(rows, { allowRecursive: true });
  assert.ok(many.length === 210 && many.every((row) => row.success));
  const both = await events.retrieve([many[0].id, many[1].id]);
  assert.deepEqual(both.map((row) => row.Subject), ["Row 000", "Row 001"]);
  const changed = await events.update([{ Id: many[0].id, Subject: "Row A" }, { Id: "00U000000000001AAA", Subject: "x" }]);
  assert.deepEqual(changed.map((row) => row.success), [true, false]);
  assert.ok((await events.destroy([many[0].id, many[1].id])).every((row) => row.success));
  assert.ok((await events.destroy(made.id)).success);
  await assert.rejects(events.retrieve(made.id), refused("ENTITY_IS_DELETED"));
});

statement("an upsert by external id creates, then changes", async () => {
  const row = { Calbridge_Link__c: "J-1", Subject: "Linked", StartDateTime, DurationInMinutes: 30 };
  const first = await connection.sobject("Event").upsert(row, "Calbridge_Link__c");
  const second = await connection.sobject("Event").upsert({ ...row, Subject: "Again" }, "Calbridge_Link__c");
  assert.deepEqual([first.success, second.success, first.id], [true, true, second.id]);
});

statement("a query streams all pages, and the client's own query builder is understood", async () => {
  const found = [];
  const query = connection.query("SELECT Id, Subject, Owner.Name FROM Event WHERE Subject LIKE 'Row %'", {
    headers: { "Sforce-Query-Options": "batchSize=200" },
  });
  query.on("record", (record) => found.push(record));
  const fetched = new Promise((end, fail) => query.on("end", end).on("error", fail));
  await query.execute({ autoFetch: true, maxFetch: 1000 });
  await fetched;
  assert.equal(found.length, 208);
  assert.equal(found[0].Owner.Name, "Integration User");
  const built = await connection
    .sobject("Event")
    .find(
      {
        Subject: { $like: "Row %" },
        StartDateTime: { $gte: jsforce.SfDate.toDateTimeLiteral("2027-01-01T00:00:00Z") },
        CreatedDate: jsforce.SfDate.TODAY,
        $or: [{ IsAllDayEvent: false }, { Location: null }],
        Id: { $nin: ["00U000000000001AAA"] },
      },
      ["Id", "Subject", "Owner.Email"],
    )
    .sort({ Subject: -1 })
    .limit(3)
    .skip(1);
  assert.deepEqual(built.map((row) => row.Subject), ["Row 208", "Row 207", "Row 206"]);
  assert.equal(await connection.sobject("Event").count({ Subject: { $like: "Row %" } }), 208);
  const all = await connection.sobject("Event").find({ Calbridge_Link__c: "J-1" }, "*");
  assert.equal(all[0].Calbridge_Link__c, "J-1");
});

statement("getUpdated and getDeleted, limits, versions and descriptions", async () => {
  const span = [new Date(Date.now() - 3_600_000).toISOString(), new Date(Date.now() + 120_000).toISOString()];
  const events = connection.sobject("Event");
  assert.ok((await events.updated(...span)).ids.length >= 209);
  assert.equal((await events.deleted(...span)).deletedRecords.length, 3);
  assert.ok(connection.limitInfo.apiUsage.used > 0);
  assert.ok((await connection.limits()).DailyApiRequests.Max > 0);
  const versions = await connection.request("/services/data");
  assert.ok(versions.some((one) => one.version === "66.0"), JSON.stringify(versions));
  const names = (await connection.describeGlobal()).sobjects.map((one) => one.name);
  assert.ok(names.includes("Event") && names.includes("User"));
  const described = await events.describe();
  assert.ok(described.fields.some((field) => field.name === "Subject" && field.type === "combobox"));
  const [org] = (await connection.query("SELECT Id, IsSandbox FROM Organization")).records;
  assert.deepEqual([org.Id, org.IsSandbox], [salesforce.org_id, true]);
});

statement("errors keep their codes", async () => {
  const events = connection.sobject("Event");
  await assert.rejects(events.create({ Subject: "x" }), refused("REQUIRED_FIELD_MISSING"));
  await assert.rejects(events.create({ Nonsense: 1, StartDateTime, DurationInMinutes: 5 }), refused("INVALID_FIELD"));
  await assert.rejects(connection.query("SELECT Id FROM"), refused("MALFORMED_QUERY"));
  await assert.rejects(connection.query("SELECT Id FROM Nonsense"), refused("INVALID_TYPE"));
  await assert.rejects(connection.request("/services/data/v66.0/nonsense"), refused("NOT_FOUND"));
  await switches({ salesforce_limit_next: 1 });
  await assert.rejects(connection.limits(), refused("REQUEST_LIMIT_EXCEEDED"));
});

statement("after revocation the token is INVALID_SESSION_ID, and signing in again helps", async () => {
  const { accessToken, instanceUrl, oauth2 } = await signIn();
  await oauth2.revokeToken(accessToken);
  // A connection of its own: one that signed in tries to refresh its token by itself.
  const other = new jsforce.Connection({ instanceUrl, accessToken, version: "66.0" });
  await assert.rejects(other.limits(), refused("INVALID_SESSION_ID"));
  const again = await signIn();
  assert.ok((await again.limits()).DailyApiRequests);
});

await run();
