"""Runs one of finetrail's commands by its name: python -m finetrail COMMAND ...

Each is a module that runs alone too: `python -m finetrail.predict`. No module is imported but the one that is named.
"""

import runpy
import sys

# Command -> the module that it is, and one line of help.
COMMANDS = {
    "check": ("finetrail.check", "validate params.yaml, all recipes, dvc.lock and DVC remotes, and run nothing"),
    "recipe": ("finetrail.recipe", "print every setting of a recipe that is in force, and the file that has it"),
    "mend": ("finetrail.mend", "mend what a kill or a bad disk has left, and tell of it; then `dvc repro`"),
    "upgrade": ("finetrail.upgrade", "bring params.yaml and recipes of an earlier version to this one"),
    "join": ("finetrail.join", "get a teammate's results from the DVC remote, and train nothing"),
    "compare": ("finetrail.compare", "tell whether runs differ by more than chance, and at which examples"),
    "search": ("finetrail.search", "try settings within ranges, each trial an experiment"),
    "try": ("finetrail.demo", "try an exported model in a browser"),
    "serve": ("finetrail.serve", "answer by an exported model over HTTP"),
    "predict": ("finetrail.predict", "answer texts, or a file of them, by an exported model"),
}
USAGE = "usage: python -m finetrail COMMAND ...        (COMMAND --help tells its options)"


def main(arguments: list[str]) -> None:
    """Run the command that the first argument names with the others."""
    name, *others = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(help_text())
        return
    if name not in COMMANDS:
        sys.exit(f"error: no command {name!r}; expected one of {', '.join(COMMANDS)}")
    module, _ = COMMANDS[name]
    sys.argv = [module, *others]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def help_text() -> str:
    """Return the usage, and a line for each command."""
    width = max(map(len, COMMANDS))
    return "\n".join([USAGE, "", *(f"  {name:<{width}}  {help}" for name, (_, help) in COMMANDS.items())])


if __name__ == "__main__":
    main(sys.argv[1:])
