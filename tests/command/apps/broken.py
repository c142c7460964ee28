"""It does not load."""

import no_such_module_anywhere  # noqa: F401 - to fail is its use
