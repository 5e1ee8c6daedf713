"""Teachers: models that write and judge instructions, and the journal that never pays twice for one reply."""
