"""It ends by SystemExit where it is imported, as one without a configuration does."""

raise SystemExit(0)
