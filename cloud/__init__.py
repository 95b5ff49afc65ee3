"""The cloud: takes batches exactly once, keeps them, answers questions about them."""
