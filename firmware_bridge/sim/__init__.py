"""The simulated cars as running programs: buses, log, control socket and loop. This is where their I/O is done."""
