"""What may go wrong while measuring."""


class BenchError(Exception):
    """Nothing can be measured: one sentence that says what happened, why, and what to do."""
