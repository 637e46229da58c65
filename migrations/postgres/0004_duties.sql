-- Several instances on one database: who is there, and who does what only one of them may do at a time.
-- SQLite has one instance, which does everything: there is no such migration there.

-- Instances that ask for duties of a kind; one that stops asking counts as gone when its time is over.
CREATE TABLE duty_member (
    connection  TEXT   NOT NULL,
    kind        TEXT   NOT NULL,              -- event_hubs/HUB/GROUP, listener, rounds, enrolment
    instance    TEXT   NOT NULL,
    alive_until BIGINT NOT NULL,              -- by the database's clock
    PRIMARY KEY (connection, kind, instance)
);

-- Who has which duty: a partition of the hub, the subscription to change events, the rounds.
CREATE TABLE duty (
    connection  TEXT   NOT NULL,
    kind        TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    owner       TEXT   NOT NULL,              -- empty: nobody
    lease_until BIGINT NOT NULL,              -- by the database's clock
    fence       BIGINT NOT NULL,              -- rises when the owner changes
    PRIMARY KEY (connection, kind, name)
);

-- What one instance heard and the one that keeps the subscriptions must know: look at this mailbox's subscription now.
CREATE TABLE nudge (
    connection TEXT   NOT NULL,
    mailbox    TEXT   NOT NULL,
    gone       BIGINT NOT NULL,               -- 1: it was removed
    PRIMARY KEY (connection, mailbox)
);
