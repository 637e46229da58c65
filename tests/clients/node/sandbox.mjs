// What every Node client here shares: the sandbox's addresses, its control API, and how a statement is checked.
//
// The environment variable SANDBOX_ENDPOINTS names the file that `calbridge-sandbox serve` wrote; `run.py` sets it, and
// NODE_EXTRA_CA_CERTS with it, which Node reads only at its start.

import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

export const endpoints = JSON.parse(readFileSync(process.env.SANDBOX_ENDPOINTS, "utf8"));
export const { microsoft, event_hubs: hub, salesforce, mailboxes } = endpoints;

// No statement takes nearly as long; a client that hangs is a failed statement, not a stuck run.
const DEADLINE_MS = 60_000;

const statements = [];
const strays = [];

/** Registers the check of one statement; it fails by throwing. */
export function statement(text, check) {
  statements.push([text, check]);
}

// An error that a client throws where nobody can catch it fails the statement that is being checked.
process.on("uncaughtException", (error) => strays.push(error));
process.on("unhandledRejection", (error) => strays.push(error));

/** Checks all statements in the order of the file, prints one line each, and ends the process. */
export async function run() {
  let failed = 0;
  for (const [text, check] of statements) {
    const began = Date.now();
    try {
      const late = new AbortController();
      const deadline = pause(DEADLINE_MS, undefined, { signal: late.signal }).then(
        () => {
          throw new Error(`no answer within ${DEADLINE_MS / 1000} s`);
        },
        () => {},
      );
      await Promise.race([check(), deadline]);
      late.abort();
      if (strays.length) throw strays[0];
      console.log(`ok      ${text} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      failed += 1;
      const reason = `${error?.name ?? "error"}: ${error?.message ?? error}`.replaceAll(/\s+/g, " ");
      console.log(`FAILED  ${text}: ${reason.slice(0, 600)}`);
      console.error(error);
    }
    strays.length = 0;
  }
  // Some clients keep timers or connections that would hold the process.
  process.exit(failed ? 1 : 0);
}

/** Calls the sandbox's control API. */
export async function control(method, path, body) {
  const answer = await fetch(endpoints.control_url + path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Sets switches of the sandbox; their names are in its README. */
export const switches = (changes) => control("PATCH", "/switches", changes);

/** Polls until the probe gives something true, and returns it. */
export async function eventually(what, probe, withinSecs = 20) {
  const end = Date.now() + withinSecs * 1000;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not happen within ${withinSecs} s`);
    await pause(50);
  }
}
