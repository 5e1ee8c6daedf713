"""Assets and checks of the group `taxonomy`."""
