-- What change events said about Salesforce records, kept until the audit of our own writes needs it no longer.
--
-- A row belongs to a record, and through its name (lane_alias) to whatever lane that leads to: lanes that merge move no row.

CREATE TABLE change (
    sequence        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of the stream
    connection      TEXT   NOT NULL,
    record          TEXT   NOT NULL,          -- s:ID
    transaction_key TEXT   NOT NULL,          -- of the event: a redelivery adds nothing
    received_at     BIGINT NOT NULL,
    deleted         BIGINT NOT NULL,
    key_id          TEXT   NOT NULL,          -- link id or lane id
    sealed          BYTEA  NOT NULL,          -- header and changed mapped values
    UNIQUE (connection, record, transaction_key)
);
