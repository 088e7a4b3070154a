-- The SHA-256 of each id, by which a task is found whose id no URL can hold well; without it all ids were hashed for one.
ALTER TABLE attempts ADD COLUMN alias TEXT;
UPDATE attempts SET alias = sha256(task_id);
CREATE INDEX attempts_alias ON attempts (alias);
