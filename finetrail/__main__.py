"""Runs one of finetrail's commands by its name: python -m finetrail COMMAND ...

Each command is also a module of its own: `python -m finetrail.predict`. Only the named module is imported.
"""

import runpy
import sys

# Command -> its module, and one line of help.
COMMANDS = {
    "check": ("finetrail.check", "validate params.yaml, all recipes, dvc.lock and DVC remotes, and run nothing"),
    "recipe": ("finetrail.recipe", "print every setting of a recipe that is in force, and the file that has it"),
    "mend": ("finetrail.mend", "repair DVC's records and remove damaged data; then run `dvc repro`"),
    "upgrade": ("finetrail.upgrade", "upgrade params.yaml and recipes of an earlier version"),
    "join": ("finetrail.join", "pull a teammate's results from the DVC remote, without training"),
    "compare": (
        "finetrail.compare",
        "test whether runs differ by more than chance, and list the examples that changed",
    ),
    "search": ("finetrail.search", "search hyperparameters; each trial is a DVC experiment"),
    "try": ("finetrail.demo", "try an exported model in a browser"),
    "serve": ("finetrail.serve", "serve an exported model over HTTP"),
    "predict": ("finetrail.predict", "predict texts, or a file of inputs, with an exported model"),
}
USAGE = "usage: python -m finetrail COMMAND ...        (COMMAND --help lists its options)"


def main(arguments: list[str]) -> None:
    """Run the command that the first argument names, with the other arguments."""
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
