"""Show what its own ``sys.excepthook`` is given."""

import sys
import traceback


def hook(kind, exc, tb):
    print(kind, exc, sys.excepthook is hook, exc.__traceback__ is tb)
    print(traceback.extract_tb(tb))


sys.excepthook = hook
1 / 0  # noqa: B018 - which raises
