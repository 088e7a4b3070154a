-- What the playbook's own tool told of its run (agp_agent.play), as JSON; NULL: nothing.
ALTER TABLE outbox ADD COLUMN play TEXT;
