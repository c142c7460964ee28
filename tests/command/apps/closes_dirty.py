"""It closes stdout, and has a thread that never ends."""

import sys

from dirty import create

sys.stdout.close()
create()
