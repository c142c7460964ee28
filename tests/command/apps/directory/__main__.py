"""A program."""

print("ran", __name__)
