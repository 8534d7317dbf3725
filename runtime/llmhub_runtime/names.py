"""Names that this package shares with who serves it; importing them costs nothing."""

from __future__ import annotations

SIM = "sim"
"""The provider id of the simulated model that ships with this package."""

SERVED_FLOW = "AGENTFLOW_SERVED_FLOW"
"""The environment variable that names the app in the processes of a served flow."""
