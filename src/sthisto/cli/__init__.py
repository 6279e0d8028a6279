"""The command line."""

from sthisto.cli.main import main

__all__ = ["main"]
