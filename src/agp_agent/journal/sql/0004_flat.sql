-- What is asked with every order and at every wake costs the same, however many tasks wait or have ended.

-- How many attempts stand in each state that is not finished: counted as they come and go.
CREATE TABLE live (
    state  TEXT PRIMARY KEY,
    number INTEGER NOT NULL CHECK (number >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO live (state, number)
SELECT value, (SELECT count(*) FROM attempts WHERE state <> 'finished' AND state = value)
  FROM json_each('["queued", "preparing", "running"]');

CREATE TRIGGER live_added AFTER INSERT ON attempts BEGIN
    UPDATE live SET number = number + 1 WHERE state = new.state;
END;

CREATE TRIGGER live_moved AFTER UPDATE OF state ON attempts BEGIN
    UPDATE live SET number = number - 1 WHERE state = old.state;
    UPDATE live SET number = number + 1 WHERE state = new.state;
END;

CREATE TRIGGER live_removed AFTER DELETE ON attempts BEGIN
    UPDATE live SET number = number - 1 WHERE state = old.state;
END;

-- What of the queue need not start: found without a look at all that waits.
CREATE INDEX attempts_cancelled ON attempts (seq) WHERE state = 'queued' AND cancel_requested = 1;
CREATE INDEX attempts_waiting ON attempts (accepted_boot_id, accepted_boot_s) WHERE state = 'queued';

-- What is not acknowledged: counted without the rows, which hold the outputs.
CREATE INDEX outbox_open ON outbox (state) WHERE state <> 'acknowledged';
