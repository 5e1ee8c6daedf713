"""Fetch documents, split them into passages, and find secrets in them."""
