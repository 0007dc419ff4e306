"""Completion of the command line in bash, zsh and fish, from what its parser accepts."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence

SHELLS = ("bash", "zsh", "fish")


def words_of(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Walk over the commands of a parser.

    Args:
        parser: The parser.
        path: The words that lead to it.

    Yields:
        The words of a command, and what may come next: its own commands and options.
    """
    following, below = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            following += list(action.choices)
            below += list(action.choices.items())
        else:
            following += [o for o in action.option_strings if o.startswith("--")]
            following += [str(c) for c in action.choices or ()]
    yield path, following
    for name, child in below:
        yield from words_of(child, (*path, name))


def script(parser: argparse.ArgumentParser, shell: str, recipes: Sequence[str]) -> str:
    """Write a completion script.

    Args:
        parser: The parser.
        shell: bash, zsh or fish.
        recipes: Names that complete where a recipe is asked for.

    Returns:
        The script, to be evaluated by the shell.
    """
    program = parser.prog
    commands = [
        (path, words + [r for r in recipes if path and path[0] in {"run", "forecast", "gate"}])
        for path, words in words_of(parser)
    ]
    if shell == "fish":
        lines = [f"complete -c {program} -e"]
        for path, words in commands:
            seen = " ".join(path)
            rule = f"__fish_seen_subcommand_from {path[-1]}" if path else "__fish_use_subcommand"
            plain = [word for word in words if not word.startswith("--")]
            if plain:
                listed = shlex.quote(" ".join(plain))
                lines.append(f"complete -c {program} -n '{rule}' -a {listed}  # {seen}".rstrip())
            lines += [
                f"complete -c {program} -n '{rule}' -l {word.removeprefix('--')}"
                for word in words
                if word.startswith("--")
            ]
        return "\n".join(lines) + "\n"
    cases = "\n".join(
        f"    {shlex.quote(' '.join(path))}) words={shlex.quote(' '.join(words))} ;;"
        for path, words in commands
    )
    head = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{head}_{program}() {{
  local here="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" k word
  for ((k = 1; k < COMP_CWORD; k++)); do
    word="${{COMP_WORDS[k]}}"
    case "$word" in -*) ;; *) path="${{path:+$path }}$word" ;; esac
  done
  while :; do
    case "$path" in
{cases}
    esac
    [[ -n "$words" || -z "$path" ]] && break
    case "$path" in *" "*) path="${{path% *}}" ;; *) path="" ;; esac
  done
  COMPREPLY=($(compgen -W "$words" -- "$here"))
}}
complete -o default -F _{program} {program}
"""
