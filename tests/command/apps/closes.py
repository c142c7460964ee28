"""It closes stdout."""

import sys

sys.stdout.close()
