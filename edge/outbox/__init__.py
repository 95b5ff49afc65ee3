"""The outbox: every record stays here until the cloud says that it has it. `box` is it; the rest are its parts."""
