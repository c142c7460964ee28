"""Say that it is ready for a SIGINT, which then arrives in the last line."""

import atexit
import signal

atexit.register(print, "bye")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print(".", flush=True)
input()  # the signal has been sent
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
