"""Nothing that a fork would meet."""

app = object()
