"""Print all that tells a program how it was started."""

import sys

print(sys.argv, sys.path)
main = sys.modules["__main__"]
assert vars(main) is globals()
spec = main.__spec__
print(spec and (spec.name, spec.origin, spec.parent))
for name, value in sorted(vars(main).items()):
    # __cached__ and __annotations__ are None and empty under python, and absent here.
    if name.startswith("__") and name not in ("__spec__", "__cached__", "__annotations__"):
        print(name, type(value) if name in ("__builtins__", "__loader__") else value)
if sys.implementation.name != "pypy":  # which shows its loader the path as it was given
    print(getattr(__loader__, "path", None), getattr(__loader__, "name", None))
