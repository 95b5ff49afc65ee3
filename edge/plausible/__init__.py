"""What a BMS says against what can be."""
