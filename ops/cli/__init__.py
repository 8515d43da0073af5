"""The command line. Each command is in a module of its own that is loaded when it is asked for."""

from __future__ import annotations

import click

from ops.cli.group import Cli, LazyCommand

COMMANDS = (
    LazyCommand("serve", "ops.cli.serve:serve", "Serve the site."),
    LazyCommand("worker", "ops.cli.worker:worker", "Work off the queues of RabbitMQ."),
    LazyCommand("ingest", "ops.cli.ingest:ingest", "Take in images: folders, files, URLs."),
    LazyCommand("crawl", "ops.cli.ingest:crawl", "Take in the images that a web site shows."),
    LazyCommand("search", "ops.cli.search:search", "Find the images that look like one."),
    LazyCommand("jobs", "ops.cli.jobs:jobs", "List, show and cancel jobs."),
    LazyCommand("images", "ops.cli.images:images", "List, show and delete stored images."),
    LazyCommand("model", "ops.cli.model:model", "Model bundles, and what they say of images."),
    LazyCommand("evaluate", "ops.cli.evaluate:evaluate_", "Measure how well a bundle retrieves."),
    LazyCommand("train", "ops.cli.train:train_", "Learn a bundle from labelled images."),
    LazyCommand("store", "ops.cli.store:store", "Figures and checks of the store on disk."),
    LazyCommand("bench", "ops.bench.cli:bench", "Measure how fast this machine is."),
    LazyCommand("doctor", "ops.cli.doctor:doctor", "Check the machine and the settings."),
    LazyCommand("demo", "ops.cli.demo:demo", "Try everything on a set of photos."),
)


@click.group("lookalike", cls=Cli, commands_by_name=COMMANDS)
@click.version_option(package_name="lookalike", prog_name="lookalike")
def main() -> None:
    """Find the images that look like a given one.

    Every setting has an environment variable, LOOKALIKE_ and its name in capitals; the common
    ones are options too, and an option wins. docs/settings.md lists them all.
    """
