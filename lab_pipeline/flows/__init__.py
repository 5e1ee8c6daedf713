"""Load flows. A flow turns one kind of leaf into instructions: a folder of prompts and thresholds, without code."""
