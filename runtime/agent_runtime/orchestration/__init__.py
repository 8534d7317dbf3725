"""Operators, the patterns that join them, routers, and graphs on agentflow's scheduler."""
