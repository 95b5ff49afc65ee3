"""`edge doctor`: what is right and wrong with this box."""
