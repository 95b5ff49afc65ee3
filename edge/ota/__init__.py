"""Models over the air: what the cloud desires is verified, fetched, probed, activated, proven, or undone."""
