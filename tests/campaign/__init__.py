"""The SIGKILL campaign, ``PYTHONPATH=tests python -m campaign``: what was accepted is reported, and ran once."""
