"""The edge agent: reads a battery, keeps every sample safe, sends compact batches up."""
