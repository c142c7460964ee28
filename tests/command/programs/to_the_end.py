"""Use ``__main__`` in a thread and an exit handler, when its last line has run."""

import atexit
import pickle
import threading
import time

done = threading.Event()


def function() -> str:
    return word


def later() -> None:
    # Not join(): on PyPy that can make threading._shutdown() fail, under python too.
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print("thread", function(), flush=True)
    done.set()


def at_exit() -> None:
    done.wait(10)
    print("exit", pickle.loads(pickle.dumps(function))(), __name__)


atexit.register(at_exit)
threading.Thread(target=later).start()
word = "globals"
