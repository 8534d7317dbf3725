"""What agentflow-serve costs: every figure is a ratio to a baseline that is measured beside it, in the same run.

`python -m benchmarks` runs all of them, `--short` in a form that finds only what is badly wrong.
"""
