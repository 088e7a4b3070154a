-- What the page works with: registered agents, the history of tasks, and the calls of the contract as they were.
CREATE TABLE IF NOT EXISTS agent (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    token TEXT NOT NULL,                        -- what it is called with
    report_token_sha256 BLOB NOT NULL UNIQUE    -- of what it comes with
) STRICT;
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY,
    agent_id INTEGER REFERENCES agent (id) ON DELETE SET NULL,
    task_id TEXT NOT NULL,
    name TEXT,                                  -- with its content NULL: another dashboard's hand sent it
    content TEXT,
    created_at TEXT NOT NULL,
    refused TEXT,                               -- the agent's sentence, where it did not take the task on
    unanswered TEXT,                            -- why no answer came: whether it has the task, its result will tell
    result_id INTEGER UNIQUE REFERENCES result (id)
) STRICT;
CREATE INDEX IF NOT EXISTS entry_by_task ON entry (task_id, id);
CREATE TABLE IF NOT EXISTS call (
    id INTEGER PRIMARY KEY,
    entry_id INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
    at TEXT NOT NULL,
    is_ours INTEGER NOT NULL,                   -- 1: to the agent, 0: from it
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    request_headers TEXT NOT NULL,
    request_body TEXT NOT NULL,
    status INTEGER,                             -- NULL: no answer
    response_headers TEXT NOT NULL,
    response_body TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS call_by_entry ON call (entry_id, id);
CREATE TRIGGER IF NOT EXISTS result_finds_its_entry AFTER INSERT ON result BEGIN
    UPDATE entry SET result_id = new.id WHERE id = (
        SELECT id FROM entry
         WHERE task_id = new.task_id AND result_id IS NULL AND refused IS NULL
           AND (agent_id IS new.agent_id OR agent_id IS NULL OR new.agent_id IS NULL)
         ORDER BY id DESC LIMIT 1);
    INSERT INTO entry (agent_id, task_id, created_at, result_id)
    SELECT new.agent_id, new.task_id, new.received_at, new.id WHERE NOT EXISTS (SELECT 1 FROM entry WHERE result_id = new.id);
END;
