"""Report on a home: status, lineage, inspection, doctor, notifications, clean-up."""
