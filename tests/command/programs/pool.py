"""Use functions and classes of ``__main__`` in the processes of a pool."""

import multiprocessing
import sys

print("main" if __name__ == "__main__" else "again", flush=True)


class Thing:
    pass


def work(thing: Thing) -> Thing:
    assert type(thing) is Thing, type(thing)
    print(__name__, flush=True)
    return Thing()


if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        assert type(pool.apply(work, (Thing(),))) is Thing
