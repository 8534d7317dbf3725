"""What Redis is good for here: quick signals, a cache of jobs, and actions that may be lost with it."""
