"""The `loradrop` command: start the processes, ask the API, check adapters before they are dropped.

Exit codes: 0 yes, 1 no or not all of it, 2 asked in a wrong way, 3 no answer, 4 not yet
(`wait` only).
Heavy imports happen inside the commands that need them, so that `loradrop ls` answers at once.
"""
