"""The vocabulary that edge and cloud share: records, wire format, errors. Never ours, never I/O."""
