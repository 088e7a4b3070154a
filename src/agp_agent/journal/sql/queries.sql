-- name: by_idempotency_key
SELECT body_sha256, accepted_status FROM attempts
 WHERE idempotency_key = :idempotency_key AND accepted_at_ms > :since_ms
 ORDER BY seq DESC LIMIT 1;

-- name: latest_of_task
SELECT a.attempt, a.is_open, a.state, a.body_sha256, o.acknowledged_at_ms, o.state AS delivery
  FROM attempts a LEFT JOIN outbox o USING (seq)
 WHERE a.task_id = :task_id ORDER BY a.attempt DESC LIMIT 1;

-- name: count_by_state
SELECT state, number FROM live WHERE number > 0;

-- name: insert
INSERT INTO attempts (run_id, task_id, attempt, body_sha256, idempotency_key, accepted_status, playbook_name,
                      playbook_sha256, playbook, runner, state, accepted_at_ms, accepted_boot_id, accepted_boot_s, alias,
                      traceparent)
VALUES (:run_id, :task_id, :attempt, :body_sha256, :idempotency_key, :accepted_status, :playbook_name,
        :playbook_sha256, :playbook, :runner, 'queued', :accepted_at_ms, :boot_id, :boot_s,
        sha256(:task_id), :traceparent);

-- (state <> 'finished' is said again where it is implied: only so SQLite sees that the index on live rows will do)

-- name: next_queued
SELECT run_id, runner, cancel_requested FROM attempts
 WHERE state <> 'finished' AND state = 'queued' AND runner NOT IN (SELECT value FROM json_each(:skip))
 ORDER BY seq LIMIT :limit;

-- (each part by a range of an index: what merely waits is not looked at)

-- name: not_to_start
WITH of_another_boot AS (
    SELECT seq FROM attempts WHERE state = 'queued' AND accepted_boot_id < :boot_id
     UNION ALL
    SELECT seq FROM attempts WHERE state = 'queued' AND accepted_boot_id > :boot_id
     UNION ALL
    SELECT seq FROM attempts WHERE state = 'queued' AND accepted_boot_id IS NULL
), found AS (
    SELECT seq FROM attempts WHERE state = 'queued' AND cancel_requested = 1
     UNION
    SELECT seq FROM attempts
     WHERE state = 'queued' AND accepted_boot_id = :boot_id AND accepted_boot_s < :boot_s - :queue_timeout_s
     UNION
    SELECT seq FROM of_another_boot JOIN attempts USING (seq) WHERE accepted_at_ms < :now_ms - 1000 * :queue_timeout_s
)
SELECT run_id, runner, cancel_requested FROM found JOIN attempts USING (seq) ORDER BY seq;

-- name: unfinished
SELECT * FROM attempts WHERE state <> 'finished' AND state IN ('preparing', 'running') ORDER BY seq;

-- name: restore
INSERT INTO attempts (run_id, task_id, attempt, body_sha256, accepted_status, playbook_name, playbook_sha256, runner,
                      state, accepted_at_ms, alias)
VALUES (:run_id, :task_id, :attempt, '', 'pending', :playbook_name, :playbook_sha256, :runner, 'queued', :accepted_at_ms,
        sha256(:task_id))
ON CONFLICT DO NOTHING;

-- name: by_run_id
SELECT * FROM attempts WHERE run_id = :run_id;

-- name: verdict
SELECT outcome, reason, error, exit_code FROM attempts WHERE run_id = :run_id AND state = 'finished';

-- name: open_slots
SELECT slot FROM attempts WHERE state <> 'finished' AND state IN ('preparing', 'running') AND slot IS NOT NULL;

-- name: preparing
UPDATE attempts SET state = 'preparing', slot = :slot, image = :image, timeout_s = :timeout_s,
                    memory_bytes = :memory_bytes
 WHERE run_id = :run_id AND state = 'queued' AND cancel_requested = 0;

-- name: running
UPDATE attempts SET state = 'running', container_id = :container_id, image_digest = :image_digest, nonce = :nonce,
                    boot_id = :boot_id, released_boot_s = :released_boot_s, started_at_ms = :started_at_ms
 WHERE run_id = :run_id AND state = 'preparing' AND cancel_requested = 0;

-- name: start
UPDATE attempts SET state = 'running', slot = :slot, image = :image, timeout_s = :timeout_s,
                    memory_bytes = :memory_bytes, container_id = :container_id, image_digest = :image_digest,
                    nonce = :nonce, boot_id = :boot_id, released_boot_s = :released_boot_s,
                    started_at_ms = :started_at_ms
 WHERE run_id = :run_id AND state = 'queued' AND cancel_requested = 0;

-- name: is_queued_before
SELECT 1 FROM attempts
 WHERE state <> 'finished' AND state = 'queued' AND run_id <> :run_id
   AND runner NOT IN (SELECT value FROM json_each(:skip)) LIMIT 1;

-- name: requeue
UPDATE attempts SET state = 'queued', tries = tries + :tries, slot = NULL, container_id = NULL, nonce = NULL,
                    boot_id = NULL, released_boot_s = NULL, started_at_ms = NULL, asked = NULL
 WHERE run_id = :run_id AND state = :seen AND state IN ('preparing', 'running') AND slot = :slot;

-- name: asked
UPDATE attempts SET asked = :asked WHERE run_id = :run_id AND state = 'running' AND asked IS NULL;

-- name: finish
UPDATE attempts SET state = 'finished', outcome = :outcome, reason = :reason, error = :error, exit_code = :exit_code,
                    output_bytes = :output_bytes, output_omitted_bytes = :output_omitted_bytes,
                    finished_at_ms = :finished_at_ms, playbook = NULL
 WHERE run_id = :run_id AND state <> 'finished';

-- name: post
INSERT INTO outbox (seq, output_head, output_tail, output_at_least, play, next_attempt_at_ms)
SELECT seq, :output_head, :output_tail, :output_at_least, :play, :finished_at_ms FROM attempts WHERE run_id = :run_id;

-- name: request_cancel
UPDATE attempts SET cancel_requested = 1
 WHERE task_id = :task_id AND is_open = 1 AND state <> 'finished'
RETURNING run_id;

-- name: due
SELECT a.seq, a.run_id, a.task_id, a.attempt, a.outcome, a.error, a.output_bytes, a.output_omitted_bytes,
       a.accepted_at_ms, a.traceparent, o.output_head, o.output_tail, o.output_at_least, o.attempts AS deliveries
  FROM outbox o JOIN attempts a USING (seq)
 WHERE o.seq = :seq;

-- name: due_seqs
SELECT seq FROM outbox
 WHERE state = 'pending' AND (next_attempt_at_ms <= :now_ms OR next_attempt_at_ms > :too_far_ms)
   AND seq NOT IN (SELECT value FROM json_each(:skip))
 ORDER BY next_attempt_at_ms LIMIT :limit;

-- name: newest_due_seqs
SELECT seq FROM outbox INDEXED BY outbox_newest
 WHERE state = 'pending' AND (next_attempt_at_ms <= :now_ms OR next_attempt_at_ms > :too_far_ms)
   AND seq NOT IN (SELECT value FROM json_each(:skip))
 ORDER BY seq DESC LIMIT :limit;

-- name: next_due
SELECT min(next_attempt_at_ms) FROM outbox
 WHERE state = 'pending' AND seq NOT IN (SELECT value FROM json_each(:skip));

-- name: acknowledge
UPDATE outbox SET state = 'acknowledged', attempts = attempts + 1, last_error = NULL, acknowledged_at_ms = :now_ms
 WHERE seq = :seq AND state <> 'acknowledged';  -- what has become a dead letter meanwhile, too: the dashboard has it

-- name: close
UPDATE attempts SET is_open = 0 WHERE seq = :seq;

-- name: postpone
UPDATE outbox SET attempts = attempts + 1, last_error = :last_error, next_attempt_at_ms = :next_attempt_at_ms
 WHERE seq = :seq AND state = 'pending';

-- name: shrink
UPDATE outbox SET is_shrunk = 1, output_head = :output_head, output_tail = :output_tail, attempts = attempts + 1
 WHERE seq = :seq AND state = 'pending' AND is_shrunk = 0;

-- name: omit
UPDATE attempts SET output_omitted_bytes = :output_omitted_bytes WHERE seq = :seq;

-- name: dead_letter
UPDATE outbox SET state = 'dead_letter', attempts = attempts + 1, last_error = :last_error
 WHERE seq = :seq AND state = 'pending';

-- name: retry_delivery
UPDATE outbox SET state = 'pending', next_attempt_at_ms = :now_ms
 WHERE state <> 'acknowledged' AND seq = (SELECT seq FROM attempts WHERE task_id = :task_id AND is_open = 1);

-- name: retry_dead_letters
UPDATE outbox SET state = 'pending', next_attempt_at_ms = :now_ms WHERE state = 'dead_letter';

-- name: dead_letter_of
SELECT a.seq, a.task_id, a.attempt, a.run_id, o.last_error FROM attempts a JOIN outbox o USING (seq)
 WHERE a.task_id = :task_id AND a.is_open = 1 AND o.state = 'dead_letter';

-- name: drop_dead_letter
DELETE FROM attempts WHERE run_id = :run_id
   AND seq IN (SELECT seq FROM outbox WHERE state = 'dead_letter');

-- name: expired
SELECT seq, task_id, attempt, run_id FROM outbox o JOIN attempts a USING (seq)
 WHERE o.state = 'pending' AND a.finished_at_ms < :before_ms LIMIT :limit;

-- name: expire
UPDATE outbox SET state = 'dead_letter', last_error = coalesce(last_error || '; ', '') || :why
 WHERE state = 'pending' AND seq = :seq;

-- name: count_outbox
SELECT state, count(*) FROM outbox INDEXED BY outbox_open WHERE state <> 'acknowledged' GROUP BY state;

-- name: unacknowledged
SELECT run_id, state, image IS NOT NULL, slot FROM attempts WHERE is_open = 1;

-- name: is_acknowledged
SELECT 1 FROM attempts WHERE run_id = :run_id AND is_open = 0;

-- name: purge
DELETE FROM attempts WHERE seq IN (
    SELECT o.seq FROM outbox o JOIN attempts a USING (seq)
     WHERE o.state = 'acknowledged' AND o.acknowledged_at_ms < :before_ms
       AND (a.idempotency_key IS NULL OR a.accepted_at_ms < :keys_before_ms)
     LIMIT :limit);

-- (what was acknowledged just now may not be in the audit trail yet; a time in the future is one of a clock set back)

-- name: oldest_acknowledged
SELECT o.seq, a.idempotency_key IS NOT NULL AND a.accepted_at_ms >= :keys_before_ms AS is_remembered
  FROM outbox o JOIN attempts a USING (seq)
 WHERE o.state = 'acknowledged' AND o.acknowledged_at_ms NOT BETWEEN :settled_before_ms AND :now_ms
   AND (a.idempotency_key IS NULL OR a.accepted_at_ms < :keys_before_ms
        OR o.output_head <> x'' OR o.output_tail <> x'')
 ORDER BY o.acknowledged_at_ms LIMIT :limit;

-- name: forget
DELETE FROM attempts WHERE seq = :seq;

-- name: drop_output
UPDATE outbox SET output_head = x'', output_tail = x'', play = NULL WHERE seq = :seq;

-- For people. Playbooks and outputs are not read.

-- name: view_task
SELECT a.task_id, a.attempt, a.state, a.outcome, a.reason, a.error, a.exit_code, a.playbook_name, a.playbook_sha256,
       a.runner, a.image, a.image_digest, a.container_id, a.accepted_at_ms, a.started_at_ms, a.finished_at_ms,
       a.output_bytes, a.output_omitted_bytes, o.state AS delivery_state, o.attempts AS delivery_attempts, o.last_error,
       CASE WHEN o.state = 'pending' THEN o.next_attempt_at_ms END AS next_attempt_at_ms, o.acknowledged_at_ms, o.play
  FROM attempts a LEFT JOIN outbox o USING (seq)
 WHERE a.task_id = :task_id AND (:attempt IS NULL OR a.attempt = :attempt) ORDER BY a.attempt DESC LIMIT 1;

-- name: task_id_of
SELECT task_id FROM attempts WHERE alias = :alias LIMIT 1;

-- (by the index on open tasks: all results that were ever acknowledged stand in the outbox too)

-- name: view_outbox
SELECT sum(o.state = 'pending') AS pending, sum(o.state = 'dead_letter') AS dead_letters,
       min(CASE WHEN o.state = 'pending' THEN a.finished_at_ms END) AS oldest_ms
  FROM attempts a CROSS JOIN outbox o USING (seq) WHERE a.is_open = 1;

-- (attempts, the newest first; what comes before a cursor that is one of them)

-- name: view_tasks
SELECT a.seq, a.task_id, a.attempt, a.state, a.outcome, a.reason, a.error, a.exit_code, a.playbook_name, a.playbook_sha256,
       a.runner, a.image, a.image_digest, a.container_id, a.accepted_at_ms, a.started_at_ms, a.finished_at_ms,
       a.output_bytes, a.output_omitted_bytes, o.state AS delivery_state, o.attempts AS delivery_attempts, o.last_error,
       CASE WHEN o.state = 'pending' THEN o.next_attempt_at_ms END AS next_attempt_at_ms, o.acknowledged_at_ms
  FROM attempts a LEFT JOIN outbox o USING (seq)
 WHERE a.seq < :before AND (:state IS NULL OR a.state = :state) AND (:outcome IS NULL OR a.outcome = :outcome)
   AND (:delivery IS NULL OR (a.state = 'finished' AND o.state = :delivery))
 ORDER BY a.seq DESC LIMIT :limit;

-- name: view_kept
SELECT a.run_id, a.attempt, a.state, a.output_bytes, a.output_omitted_bytes, o.output_head, o.output_tail, o.output_at_least
  FROM attempts a LEFT JOIN outbox o USING (seq)
 WHERE a.task_id = :task_id AND (:attempt IS NULL OR a.attempt = :attempt) ORDER BY a.attempt DESC LIMIT 1;

-- name: oldest_queued
SELECT accepted_at_ms FROM attempts INDEXED BY attempts_live WHERE state = 'queued' AND state <> 'finished'
 ORDER BY seq LIMIT 1;
