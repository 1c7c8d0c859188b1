"A small sample of each campaign of torture.py."
import os
import subprocess
import sys
from pathlib import Path

import pytest

import torture


@pytest.mark.parametrize("campaign", torture.SAMPLES)
def test_a_sample_of(campaign):
    # in a process without threads: what is forked while another thread holds a lock never gets it
    command = [sys.executable, torture.__file__, "--sample", campaign]
    where = {"cwd": Path(torture.__file__).parent, "env": os.environ | {"HF_HUB_OFFLINE": "1"}}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **where)
    assert done.returncode == 0 and done.stdout.startswith(campaign), done.stderr[-3000:]
