"""Names for annotations; at run time their modules are not loaded, which would take too long."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable as Callable
    from collections.abc import Collection as Collection
    from collections.abc import Iterable as Iterable
    from collections.abc import Iterator as Iterator
    from collections.abc import Mapping as Mapping
    from typing import Any as Any
    from typing import Literal

    from typing_extensions import Never as Never

    OnHazard = Literal["ignore", "warn", "raise"]
else:
    Any = Callable = Collection = Iterable = Iterator = Mapping = Never = OnHazard = object
