"""`make bench-detection`: tollwatch's detector and its alternatives on the simulator's months."""
