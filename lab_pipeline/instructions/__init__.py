"""Generate, judge and curate the instructions of each leaf."""
