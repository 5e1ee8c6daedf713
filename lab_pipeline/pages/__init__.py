"""Pages for the browser on which people read and review a home, and write leaves."""
