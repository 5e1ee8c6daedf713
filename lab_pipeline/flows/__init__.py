"""Flows: how a kind of leaf becomes instructions. A flow is a folder of prompts and thresholds; nothing in it is code."""
