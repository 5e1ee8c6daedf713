"""Assets and checks of the group `instructions`."""
