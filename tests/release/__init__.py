"""What is shipped: built twice and compared, listed, and tried. ``python -m release`` is the check before a release."""
