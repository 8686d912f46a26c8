"""Importing this holds SIGTERM and SIGINT back until whoever can handle them unblocks them.

To process 1 of a container a signal for which there is no handler yet never comes, and importing
torch takes seconds: a pod that is told to stop in them would work on until it is killed. So what
is started as a program imports this before anything else; signals that are held back are not lost.
"""

import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
