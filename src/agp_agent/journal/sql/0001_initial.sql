-- One row an attempt: a task_id that is sent again after its result was acknowledged is a new attempt.
CREATE TABLE attempts (
    seq                  INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance
    run_id               TEXT NOT NULL UNIQUE,               -- random: unique even over rebuilt journals
    task_id              TEXT NOT NULL,
    attempt              INTEGER NOT NULL CHECK (attempt >= 1),
    is_open              INTEGER NOT NULL DEFAULT 1 CHECK (is_open IN (0, 1)),  -- 1 until the dashboard acknowledged
    body_sha256          TEXT NOT NULL,
    idempotency_key      TEXT,
    accepted_status      TEXT NOT NULL CHECK (accepted_status IN ('pending', 'running')),
    playbook_name        TEXT NOT NULL,
    playbook_sha256      TEXT NOT NULL,
    playbook             BLOB,                               -- NULL once finished
    runner               TEXT,                               -- NULL: none matched
    state                TEXT NOT NULL CHECK (state IN ('queued', 'preparing', 'running', 'finished')),
    tries                INTEGER NOT NULL DEFAULT 0,         -- containers that ended before the playbook started
    slot                 TEXT,
    container_id         TEXT,
    image                TEXT,
    image_digest         TEXT,
    nonce                TEXT,                               -- of the start marker
    timeout_s            REAL,
    memory_bytes         INTEGER,
    boot_id              TEXT,                               -- the kernel's boot in which it was released
    released_boot_s      REAL,                               -- and that boot's clock at that moment
    accepted_at_ms       INTEGER NOT NULL,
    accepted_boot_id     TEXT,                               -- the same moment by the boot clock, which never jumps
    accepted_boot_s      REAL,
    started_at_ms        INTEGER,
    finished_at_ms       INTEGER,
    cancel_requested     INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    asked                TEXT CHECK (asked IN ('deadline', 'cancel_requested')),  -- why the agent itself stopped it
    outcome              TEXT,
    reason               TEXT,
    error                TEXT,
    exit_code            INTEGER,
    output_bytes         INTEGER,
    output_omitted_bytes INTEGER,
    UNIQUE (task_id, attempt),
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((outcome IS NULL) = (reason IS NULL))
) STRICT;

CREATE UNIQUE INDEX attempts_open ON attempts (task_id) WHERE is_open = 1;
CREATE INDEX attempts_live ON attempts (state, seq) WHERE state <> 'finished';
CREATE INDEX attempts_key ON attempts (idempotency_key, accepted_at_ms) WHERE idempotency_key IS NOT NULL;

-- One row a finished attempt: the result, and how its delivery stands.
CREATE TABLE outbox (
    seq                INTEGER PRIMARY KEY REFERENCES attempts (seq) ON DELETE CASCADE,
    state              TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'acknowledged', 'dead_letter')),
    output_head        BLOB NOT NULL,
    output_tail        BLOB NOT NULL,                        -- empty where nothing was omitted
    output_at_least    INTEGER NOT NULL DEFAULT 0 CHECK (output_at_least IN (0, 1)),  -- nobody counted what is omitted
    is_shrunk          INTEGER NOT NULL DEFAULT 0 CHECK (is_shrunk IN (0, 1)),  -- cut once for a dashboard that said 413
    attempts           INTEGER NOT NULL DEFAULT 0,
    next_attempt_at_ms INTEGER NOT NULL,
    last_error         TEXT,
    acknowledged_at_ms INTEGER
) STRICT;

CREATE INDEX outbox_pending ON outbox (next_attempt_at_ms) WHERE state = 'pending';
CREATE INDEX outbox_newest ON outbox (seq) WHERE state = 'pending';
CREATE INDEX outbox_acknowledged ON outbox (acknowledged_at_ms) WHERE state = 'acknowledged';
