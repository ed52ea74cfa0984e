"""`eggapi completion`: what a shell needs to complete our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_EGGAPI_COMPLETE"
"""By which a shell asks; click's own name for it."""


@click.command(short_help="Print what a shell needs to complete commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the lines by which a shell completes commands and options.

    \b
    eggapi completion bash >> ~/.bashrc
    eggapi completion zsh >> ~/.zshrc
    eggapi completion fish > ~/.config/fish/completions/eggapi.fish

    Open a new shell then.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    click.echo(kind(context.find_root().command, {}, "eggapi", VARIABLE).source())
