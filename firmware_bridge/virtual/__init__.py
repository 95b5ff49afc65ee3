"""VirtualBms: the simulated pack answers in any of the languages on the shelf, and lies or stammers when told to."""
