"""Run jobs: launcher, run workers, reaping of dead runs, the command line's runner."""
