"""A program that forks beside a thread."""

import os
import sys

from dirty import create

create(daemon=True)
print("args", sys.argv[1:])
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
print("forked")
