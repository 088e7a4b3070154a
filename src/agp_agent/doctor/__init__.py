"""What `agp-agent doctor` finds out: the engine, this machine, and whether the lockdown of tasks holds."""
