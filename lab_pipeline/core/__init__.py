"""Build on these everywhere: errors, storage, the home, git, processes, progress, row schemas."""
