"""Options that several commands have."""

from __future__ import annotations

import click

from agentflow_serve.commands.paths import DOCUMENT

feature_store_option = click.option(
    "--feature-store", help="Where features are read and written: local:FOLDER or hopsworks:PROJECT."
)
embedder_option = click.option("--embedder", help="The role that embeds text queries of searches that name none.")
budgets_option = click.option("--budgets", type=DOCUMENT, help="Who may use how much (budgets.yaml).")
policy_option = click.option("--policy", type=DOCUMENT, help="Which models and tools may be called, and by whom.")
auth_option = click.option("--auth", type=click.Choice(["keys", "none"]), help="Who may call. [default: none]")
open_option = click.option(
    "--open-to-network", is_flag=True, default=None, help="With --auth none: anybody who reaches the port may call."
)
