"""Long campaigns and timings, each run by its own make target; results go to docs/, dated."""
