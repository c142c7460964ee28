"""A program that forks, and needs nothing."""

import os

if os.fork() == 0:
    os._exit(0)
print("forked")
