"""What a mule does: use what the application made before the fork, and tell how it went."""

from __future__ import annotations

import os
from pathlib import Path

from preloaded import count, resets, run_executor

told = f"{count()} {run_executor() == os.getpid()} {resets.count(os.getpid())}"
part = Path(os.environ["SITE"], "mule.part")
part.write_text(told)
part.rename(part.with_name("mule"))

while True:
    import uwsgi  # type: ignore[import-not-found]

    uwsgi.mule_get_msg()
