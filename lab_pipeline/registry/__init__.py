"""Models: the base model, and the champion with its history."""
