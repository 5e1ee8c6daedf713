"""Provide what all packages build on: errors, storage, the home, git, processes, progress, row types."""
