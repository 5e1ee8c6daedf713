"""Assets and checks of the group `datasets`."""
