"""The harness's `script`, by the name that test_forked.py knows."""

from harness import script as script
