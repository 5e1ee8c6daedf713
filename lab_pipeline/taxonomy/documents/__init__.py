"""Fetch documents, cut them into passages, find secrets in them."""
