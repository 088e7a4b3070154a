"""AGP Enterprise Agent: runs automation playbooks in ephemeral, locked-down containers and never loses a result."""

__version__ = "0.2.0"
