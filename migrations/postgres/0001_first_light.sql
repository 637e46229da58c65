-- First light: everything durable, for all engines that share the database.
--
-- Conventions, the same as in `migrations/sqlite/` under the same number: ids are TEXT, instants are BIGINT milliseconds since
-- 1970-01-01T00:00Z, switches are BIGINT 0 or 1, lists are JSON in TEXT, sealed values are BYTEA. Every key starts with the
-- connection, except ids that are random by construction.

-- One row a database: what it is.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- One row a meeting being worked on: who holds it, under which fence, and when it runs again without a signal.
CREATE TABLE lane (
    lane_id     TEXT   NOT NULL PRIMARY KEY,
    connection  TEXT   NOT NULL,
    owner       TEXT   NOT NULL DEFAULT '',   -- empty: nobody
    lease_until BIGINT NOT NULL DEFAULT 0,    -- by the database's clock
    fence       BIGINT NOT NULL DEFAULT 0,    -- rises with each claim
    tries       BIGINT NOT NULL DEFAULT 0,
    wake_at     BIGINT,                       -- by the engine's clock
    merged_into TEXT,                         -- the lane that took this one in
    created_at  BIGINT NOT NULL
);
CREATE INDEX lane_wake ON lane (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX lane_owned ON lane (lease_until) WHERE owner <> '';
CREATE INDEX lane_merged ON lane (merged_into) WHERE merged_into IS NOT NULL;

-- Names that lead to a lane. `remote_id` is the name without mailbox and original start: what a person pastes.
CREATE TABLE lane_alias (
    connection TEXT NOT NULL,
    kind       TEXT NOT NULL,
    value      TEXT NOT NULL,
    lane_id    TEXT NOT NULL,
    remote_id  TEXT NOT NULL,
    PRIMARY KEY (connection, kind, value)
);
CREATE INDEX lane_alias_lane ON lane_alias (lane_id);
CREATE INDEX lane_alias_remote ON lane_alias (remote_id);

-- The queue: records waiting to be reconciled, latest wins.
CREATE TABLE dirty (
    connection       TEXT   NOT NULL,
    record           TEXT   NOT NULL,         -- o:MAILBOX:EVENT or s:ID
    lane_id          TEXT   NOT NULL,
    generation       BIGINT NOT NULL,         -- rises by one with each signal
    signals          BIGINT NOT NULL,         -- not yet covered by a run
    deleted          BIGINT NOT NULL,
    cause            TEXT   NOT NULL,
    versions         TEXT   NOT NULL,         -- JSON list, newest last, at most 16
    positions        TEXT   NOT NULL,         -- JSON list, newest last, at most 16
    first_signal_at  BIGINT NOT NULL,
    burst_started_at BIGINT NOT NULL,
    last_signal_at   BIGINT NOT NULL,
    due_at           BIGINT NOT NULL,
    claimed          BIGINT NOT NULL DEFAULT 0, -- 1: a run knows of this generation
    PRIMARY KEY (connection, record)
);
CREATE INDEX dirty_due ON dirty (due_at);
CREATE INDEX dirty_lane ON dirty (lane_id);

-- The link: one meeting on both sides. Values are in `sealed`, everything else in plain columns and `body`.
CREATE TABLE correlation (
    link_id              TEXT   NOT NULL PRIMARY KEY,
    connection           TEXT   NOT NULL,
    lane_id              TEXT   NOT NULL,
    ical_uid             TEXT   NOT NULL DEFAULT '',
    original_start       TEXT   NOT NULL DEFAULT '',
    generation           BIGINT NOT NULL,
    mailbox              TEXT,
    outlook_record       TEXT,                -- o:MAILBOX:EVENT
    outlook_event_id     TEXT,
    outlook_change_key   TEXT,
    salesforce_record    TEXT,                -- s:ID
    salesforce_id        TEXT,
    salesforce_modstamp  BIGINT,
    state                TEXT   NOT NULL,     -- live, tombstone, held, dead_letter
    state_reason         TEXT,
    state_at             BIGINT,
    last_writer          TEXT,
    revision             BIGINT NOT NULL,
    starts_at            BIGINT,              -- timed meetings
    ends_at              BIGINT,
    first_day            TEXT,                -- all-day meetings, YYYY-MM-DD
    last_day             TEXT,
    created_at           BIGINT NOT NULL,
    in_step_at           BIGINT,
    body                 TEXT   NOT NULL,     -- JSON of the link without field values
    sealed               BYTEA  NOT NULL,     -- bases and open intents, sealed with the link's data key
    key_id               TEXT   NOT NULL
);
-- A tombstone gives its records free: a meeting that comes back is a new generation.
CREATE UNIQUE INDEX correlation_outlook ON correlation (connection, outlook_record)
    WHERE outlook_record IS NOT NULL AND state <> 'tombstone';
CREATE UNIQUE INDEX correlation_salesforce ON correlation (connection, salesforce_record)
    WHERE salesforce_record IS NOT NULL AND state <> 'tombstone';
CREATE UNIQUE INDEX correlation_meeting ON correlation (connection, ical_uid, original_start, generation)
    WHERE ical_uid <> '' AND state <> 'tombstone';
CREATE INDEX correlation_lane ON correlation (lane_id);
CREATE INDEX correlation_change_key ON correlation (outlook_change_key) WHERE outlook_change_key IS NOT NULL;
CREATE INDEX correlation_day ON correlation (mailbox, starts_at);
CREATE INDEX correlation_first_day ON correlation (mailbox, first_day) WHERE first_day IS NOT NULL;

-- Other mailboxes' copies of the same meeting.
CREATE TABLE copy (
    connection TEXT NOT NULL,
    record     TEXT NOT NULL,
    link_id    TEXT NOT NULL,
    mailbox    TEXT NOT NULL,
    PRIMARY KEY (connection, link_id, record)
);
CREATE INDEX copy_mailbox ON copy (mailbox, link_id);

-- Open writes. The values are in the link's sealed part; a row here is for finding them.
CREATE TABLE intent (
    token       TEXT   NOT NULL PRIMARY KEY,
    connection  TEXT   NOT NULL,
    link_id     TEXT   NOT NULL,
    lane_id     TEXT   NOT NULL,
    side        TEXT   NOT NULL,
    action      TEXT   NOT NULL,
    record      TEXT,
    reason      TEXT   NOT NULL,
    sends       BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    give_up_at  BIGINT NOT NULL,
    UNIQUE (link_id, side)
);

-- Every decision, append-only, without field values.
CREATE TABLE journal (
    sequence       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection     TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    lane_id        TEXT,
    link_id        TEXT,
    kind           TEXT   NOT NULL,           -- decided, intended, settled, rejected
    side           TEXT,
    record         TEXT,
    outcome        TEXT,
    reasons        TEXT   NOT NULL,           -- names, the deciding one first, separated by commas
    fields         TEXT   NOT NULL,           -- names of mapping rules, separated by commas
    versions       TEXT   NOT NULL,           -- JSON list
    positions      TEXT   NOT NULL,           -- JSON list
    signals        BIGINT NOT NULL,
    echoes         BIGINT NOT NULL,
    token          TEXT,
    calls          BIGINT NOT NULL,
    mails          BIGINT NOT NULL,
    latency_ms     BIGINT,
    error          TEXT,
    config_version TEXT   NOT NULL
);
CREATE INDEX journal_lane ON journal (lane_id, sequence) WHERE lane_id IS NOT NULL;
CREATE INDEX journal_link ON journal (link_id, sequence) WHERE link_id IS NOT NULL;
CREATE INDEX journal_token ON journal (token) WHERE token IS NOT NULL;

-- Mapped values of a journal row: before, after, lost. Sealed, so that they can be erased.
CREATE TABLE image (
    sequence BIGINT NOT NULL PRIMARY KEY,
    key_id   TEXT   NOT NULL,
    sealed   BYTEA  NOT NULL
);

-- Data keys, each wrapped by the store key. Deleting a row erases everything sealed with it.
CREATE TABLE data_key (
    key_id     TEXT   NOT NULL PRIMARY KEY,   -- link id, lane id or dead letter id
    connection TEXT   NOT NULL,
    wrapped    BYTEA  NOT NULL,
    created_at BIGINT NOT NULL
);

-- Keyed hashes of the words of subjects.
CREATE TABLE word (
    connection TEXT NOT NULL,
    hash       TEXT NOT NULL,
    lane_id    TEXT NOT NULL,
    PRIMARY KEY (connection, hash, lane_id)
);
CREATE INDEX word_hash ON word (hash);
CREATE INDEX word_lane ON word (lane_id);

-- Versions that a lane has seen, current or not: a person may paste an old change key.
CREATE TABLE seen_version (
    connection TEXT NOT NULL,
    version    TEXT NOT NULL,
    lane_id    TEXT NOT NULL,
    PRIMARY KEY (connection, version, lane_id)
);
CREATE INDEX seen_version_version ON seen_version (version);
CREATE INDEX seen_version_lane ON seen_version (lane_id);

-- What needs a person; `closed_at` is set when it no longer does.
CREATE TABLE dead_letter (
    dead_letter_id TEXT   NOT NULL PRIMARY KEY,
    connection     TEXT   NOT NULL,
    lane_id        TEXT,
    link_id        TEXT,
    record         TEXT,
    side           TEXT,
    reason         TEXT   NOT NULL,
    detail         TEXT   NOT NULL,
    at             BIGINT NOT NULL,
    closed_at      BIGINT,
    raw            BYTEA,                     -- the message as received, sealed
    key_id         TEXT
);
CREATE UNIQUE INDEX dead_letter_open_lane ON dead_letter (lane_id) WHERE lane_id IS NOT NULL AND closed_at IS NULL;
CREATE INDEX dead_letter_open ON dead_letter (at) WHERE closed_at IS NULL;

-- How far each stream is covered.
CREATE TABLE checkpoint (
    connection TEXT   NOT NULL,
    stream     TEXT   NOT NULL,
    value      TEXT   NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (connection, stream)
);

-- Signals dropped at intake because they were delivered before.
CREATE TABLE duplicate (
    connection TEXT   NOT NULL,
    stream     TEXT   NOT NULL,
    signals    BIGINT NOT NULL,
    PRIMARY KEY (connection, stream)
);

-- Graph subscriptions.
CREATE TABLE subscription (
    connection       TEXT   NOT NULL,
    subscription_id  TEXT   NOT NULL,
    mailbox          TEXT   NOT NULL,
    notification_url TEXT   NOT NULL,
    expires_at       BIGINT NOT NULL,         -- real time
    PRIMARY KEY (connection, subscription_id)
);

-- Mailboxes paired with Salesforce users.
CREATE TABLE enrolment (
    connection       TEXT   NOT NULL,
    mailbox          TEXT   NOT NULL,
    salesforce_user  TEXT   NOT NULL,
    enrolled_at      BIGINT NOT NULL,
    address          TEXT   NOT NULL,
    zone             TEXT   NOT NULL,
    first_round_done BIGINT NOT NULL,
    PRIMARY KEY (connection, mailbox)
);

-- For people with SQL: one row a meeting, ids, states and times, never a field value. See README.md beside this file.
CREATE VIEW meeting AS
SELECT c.connection,
       c.link_id,
       c.state,
       c.state_reason,
       to_char(to_timestamp(c.state_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS state_since_utc,
       c.mailbox,
       c.outlook_event_id,
       c.outlook_change_key,
       c.ical_uid,
       c.original_start,
       c.generation,
       c.salesforce_id,
       to_char(to_timestamp(c.salesforce_modstamp / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS salesforce_modified_utc,
       to_char(to_timestamp(c.starts_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS starts_utc,
       to_char(to_timestamp(c.ends_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS ends_utc,
       c.first_day,
       c.last_day,
       c.last_writer,
       to_char(to_timestamp(c.created_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS linked_utc,
       to_char(to_timestamp(c.in_step_at / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS in_step_utc,
       (SELECT COUNT(*) FROM intent i WHERE i.link_id = c.link_id)  AS open_intents,
       (SELECT COUNT(*) FROM dirty d WHERE d.lane_id = c.lane_id)   AS waiting_records,
       (SELECT COUNT(*) FROM journal j WHERE j.link_id = c.link_id) AS journal_rows
FROM correlation c;
