"""It prints, by way of the interpreter and past it."""

import os

print("loading", flush=True)
os.write(1, b"past it\n")
