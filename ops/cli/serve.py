"""``lookalike serve``: the site, with workers inside unless RabbitMQ is set."""

from __future__ import annotations

import click

from ops.cli.console import Console
from ops.cli.options import COLLECTION, Command, settings_options
from ops.cli.session import opened
from ops.cli.site import run_site
from ops.lock import ServerLock
from ops.wording import counted
from workers.settings import Settings


@click.command(cls=Command)
@settings_options("host", "port", *COLLECTION)
@click.pass_obj
def serve(console: Console, settings: Settings) -> None:
    """Serve the site until Ctrl-C or SIGTERM.

    On the embedded default the workers run in this process, and nothing else is needed. With
    RabbitMQ they are started with `lookalike worker`. There is one server for a data directory.
    """
    with ServerLock(settings.data_dir) as lock, opened(settings, console, serve=True) as client:
        status = client.status()  # opens what could be wrong, before anybody is let in
        console.note(
            f"{counted(status['images'], 'image')} in {settings.data_dir}, "
            f"bundle {status['bundle']}, {status['broker']} broker."
        )
        if not settings.embedded:
            console.note("The work is done by `lookalike worker`, started apart from this.")
        run_site(client, settings, lock, console)
