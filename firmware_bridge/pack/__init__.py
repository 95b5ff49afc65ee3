"""The simulated car: cells, heat, vehicle, what it does all day, what its BMS makes of it. Pure: no I/O, no clock."""
