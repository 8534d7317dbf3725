"""The kernel: requests become jobs, and jobs are done by agents and operators."""
