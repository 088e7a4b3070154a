-- The newest results that are due are found without touching the rows, whose outputs stand before their due time.
DROP INDEX outbox_newest;
CREATE INDEX outbox_newest ON outbox (seq, next_attempt_at_ms) WHERE state = 'pending';
