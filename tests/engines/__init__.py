"""The suites that need an engine, against every engine there is here: ``python -m engines``."""
