"""The allow-list: hazards that are known and accepted.

A pattern is ``kind:subject``, as in ``"thread:MyMetrics*"``, ``"socket:*:5432"`` or
``"native-thread:*"``. The kind ends at the first colon. Both are matched as file names are, with
``*``, ``?`` and ``[...]``, case-sensitively and from end to end. A kind alone allows all of it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from .._hazard import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._hazard import Hazard


class AllowList:
    """Patterns, checked and ready.

    Args:
        patterns: See the top of this file; one pattern may stand by itself.

    Raises:
        ValueError: A pattern's kind is none that the audit knows.
        TypeError: A pattern is no string.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._rules: list[tuple[str, str]] = []
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"allow: a pattern must be a str, not {pattern!r}")
            kind, colon, subject = pattern.partition(":")
            if not any(fnmatchcase(known, kind) for known in KINDS):
                raise ValueError(
                    f"allow: {pattern!r}: there is no kind {kind!r}; kinds are {', '.join(KINDS)}"
                )
            self._rules.append((kind, subject if colon else "*"))

    def __contains__(self, hazard: Hazard) -> bool:
        return any(
            fnmatchcase(hazard.kind, kind) and fnmatchcase(hazard.subject, subject)
            for kind, subject in self._rules
        )
