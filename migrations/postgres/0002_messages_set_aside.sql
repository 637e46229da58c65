-- Messages that are no signals: counted by cause, so that a flood of them fills nothing.

CREATE TABLE reject (
    connection   TEXT   NOT NULL,
    side         TEXT   NOT NULL,
    stream       TEXT   NOT NULL,             -- empty: not known
    reason       TEXT   NOT NULL,
    detail       TEXT   NOT NULL,             -- one of a closed list of texts
    messages     BIGINT NOT NULL,             -- all that came
    unjournaled  BIGINT NOT NULL,             -- of these, since the newest journal row
    journaled_at BIGINT NOT NULL,             -- 0: never
    first_at     BIGINT NOT NULL,
    last_at      BIGINT NOT NULL,
    PRIMARY KEY (connection, side, stream, reason, detail)
);

-- A message that comes again is counted on its dead letter instead of making another one.
ALTER TABLE dead_letter ADD COLUMN fingerprint TEXT;             -- keyed hash of the message; none for meetings
ALTER TABLE dead_letter ADD COLUMN size BIGINT;                  -- of the whole message, in bytes
ALTER TABLE dead_letter ADD COLUMN times BIGINT NOT NULL DEFAULT 1;
ALTER TABLE dead_letter ADD COLUMN last_at BIGINT;
ALTER TABLE dead_letter ADD COLUMN position TEXT;                -- JSON, of the newest one
CREATE UNIQUE INDEX dead_letter_message ON dead_letter (connection, side, reason, fingerprint)
    WHERE fingerprint IS NOT NULL AND closed_at IS NULL;
