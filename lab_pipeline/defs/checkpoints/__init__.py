"""Assets and checks of the group `checkpoints`."""
