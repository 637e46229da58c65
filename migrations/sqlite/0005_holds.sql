-- Writes that wait or are held, what a person says about them, and what has been used up.

-- What the meeting waits to do: delete, mail; empty where it waits for nothing of the kind.
ALTER TABLE correlation ADD COLUMN wants TEXT NOT NULL DEFAULT '';
ALTER TABLE correlation ADD COLUMN wants_author TEXT NOT NULL DEFAULT '';  -- the Salesforce user who asked for it
CREATE INDEX correlation_wants ON correlation (connection, wants, mailbox) WHERE wants <> '';

-- What a person said and no run has followed yet: JSON.
ALTER TABLE lane ADD COLUMN instruction TEXT;

-- 1: a write that waits for approval; 0: a failure.
ALTER TABLE dead_letter ADD COLUMN held BIGINT NOT NULL DEFAULT 0;

-- The Salesforce user whose change a mail carries.
ALTER TABLE journal ADD COLUMN mail_author TEXT;

-- Uses of what is limited; those outside of their window are deleted with the next use.
CREATE TABLE spent (
    connection TEXT   NOT NULL,
    budget     TEXT   NOT NULL,               -- deletes_in_mailbox, deletes_by_author, mails_by_author
    name       TEXT   NOT NULL,               -- the mailbox or the Salesforce user
    link_id    TEXT   NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX spent_window ON spent (connection, budget, name, at);
CREATE INDEX spent_link ON spent (connection, link_id, at);
