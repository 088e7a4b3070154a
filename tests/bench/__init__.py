"""What the agent costs, measured side by side with what it is compared to: ``python -m bench``.

Nothing here is asserted in time: the figures and the goals stand beside each other in one table.
"""
