"""A program that gives up before it forks."""

import sys

sys.exit("no configuration")
