"""How a command ends when it does not end well: a sentence with advice, and an exit code."""


class CommandFailed(Exception):
    """The command ends here. `exit_code` is 1: the answer is no."""

    exit_code = 1


class UsageError(CommandFailed):
    """Asked in a way that cannot work: a wrong option, a missing key, a missing package."""

    exit_code = 2


class TimedOut(CommandFailed):
    """It may still happen; nobody waits any longer."""

    exit_code = 4


class Unreachable(CommandFailed):
    """Nobody is there to answer: the API, the watcher or Redis."""

    exit_code = 3
