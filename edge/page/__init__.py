"""The agent's own page: what this box sees, without any cloud."""
