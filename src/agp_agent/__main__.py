"""``python -m agp_agent`` is the command ``agp-agent``."""

from agp_agent.cli import main

main()
