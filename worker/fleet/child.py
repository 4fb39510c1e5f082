"""Run a command that dies with its parent, even where the parent is killed: `python child.py PID COMMAND...`.

The kernel is asked to send SIGTERM when the parent ends; then the command takes this process's place, so
no wrapper stays behind. Standard library only: it starts in some 15 ms.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command given on the command line."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent ended before its child had started")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
