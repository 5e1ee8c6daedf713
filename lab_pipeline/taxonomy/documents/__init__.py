"""Fetch documents, split them into passages, and find secrets and personal data in them."""
