"""Runs a command until it ends or the process that asked for it is gone: then all that the command has started ends.

``python guard.py PID COMMAND…``, as the leader of a process group. It needs nothing of this package.
"""

import os
import signal
import subprocess
import sys
import time

POLL = 0.1  # seconds

process = subprocess.Popen(sys.argv[2:])
while process.poll() is None:
    if os.getppid() != int(sys.argv[1]):
        os.killpg(0, signal.SIGKILL)
    time.sleep(POLL)
sys.exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)
