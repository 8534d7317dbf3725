"""Options that several commands have."""

from __future__ import annotations

import click

feature_store_option = click.option(
    "--feature-store", help="Where features are read and written: local:FOLDER or hopsworks:PROJECT."
)
embedder_option = click.option("--embedder", help="The role that embeds text queries of searches that name none.")
auth_option = click.option("--auth", type=click.Choice(["keys", "none"]), help="Who may call. [default: none]")
open_option = click.option(
    "--open-to-network", is_flag=True, default=None, help="With --auth none: anybody who reaches the port may call."
)
