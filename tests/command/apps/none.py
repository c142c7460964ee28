"""It has no stdout."""

import sys

sys.stdout = None
