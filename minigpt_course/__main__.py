"""What `minigpt` and `python -m minigpt_course` run."""
import os
import signal
import sys


def interrupted(number, frame) -> None:
    "Ctrl-C where there is nothing to save, for example while the library is being imported."
    os.write(2, b"minigpt: interrupted\n")
    os._exit(130)


def main() -> None:
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupted)  # a training sets its own meanwhile
    from minigpt_course.cli import main as command
    sys.exit(command())


if __name__ == "__main__": main()
