"""`agentk completion SHELL`: a small script that asks `agentk complete` what may come next."""

from typing import Annotated

import typer

from agentk.cli import options, show, usage

app = typer.Typer(**options.APP)

BASH = """\
_agentk() {
    local IFS=$'\\n'
    COMPREPLY=($(agentk complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
}
complete -o default -F _agentk agentk
"""
ZSH = """\
#compdef agentk
_agentk() {
    local -a found
    found=("${(@f)$(agentk complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${found[1]} ]]; then compadd -a found; else _files; fi
}
compdef _agentk agentk
"""
FISH = """\
complete -c agentk -f -a '(agentk complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
complete -c agentk -s f -l filename -r -F
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", show_default=False)]) -> int:
    """Print a completion script for a shell.

    Examples:

    \b
      source <(agentk completion bash)
      agentk completion zsh > "${fpath[1]}/_agentk"
      agentk completion fish > ~/.config/fish/completions/agentk.fish
    """
    if shell not in SCRIPTS:
        raise usage.Usage(f"no completion for {shell!r}", hint=f"use {', '.join(SCRIPTS)}")
    show.write(SCRIPTS[shell])
    return 0
