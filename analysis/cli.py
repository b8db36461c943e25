"""The ``analysis`` command. Heavy modules are imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import typer

from analysis.commands import measures, pictures, sharing
from preprocess.progress import exit_on_error

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Shows, measures and uses what each layer of a trained ladder has learned.",
)
for command in (
    sharing.explore,
    measures.report,
    measures.probe,
    measures.encode,
    pictures.manifold,
    pictures.sample,
    pictures.reconstruct,
    pictures.swap,
    pictures.interpolate,
    pictures.arithmetic,
    pictures.edit,
    sharing.export,
):
    app.command()(exit_on_error()(command))
