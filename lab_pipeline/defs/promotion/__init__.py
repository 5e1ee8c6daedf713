"""Assets and checks of the group `promotion`."""
