"""What `minigpt` and `python -m minigpt_course` run."""
import os
import signal
import sys


def interrupted(number, frame) -> None:
    "Ctrl-C while the library is being imported: there is nothing to save."
    os.write(2, b"minigpt: interrupted\n")
    os._exit(130)


def main() -> None:
    usual = signal.getsignal(signal.SIGINT)
    if usual != signal.SIG_IGN: signal.signal(signal.SIGINT, interrupted)
    from minigpt_course.cli import main as command
    signal.signal(signal.SIGINT, usual)
    sys.exit(command())


if __name__ == "__main__": main()
