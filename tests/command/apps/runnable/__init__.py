"""A package."""

print("imported", __name__)
