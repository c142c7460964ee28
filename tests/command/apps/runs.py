"""A program that does not fork."""

print("ran")
