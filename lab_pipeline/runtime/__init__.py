"""Start and follow runs of the jobs, from the command line and from the UI's daemon."""
