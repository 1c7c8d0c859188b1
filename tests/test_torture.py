"A small sample of each campaign of torture.py."
import random

import pytest

import torture

SAMPLES = {
    "kill -9 at random moments": lambda at: torture.killed_at_random(at, 3, random.Random(1)),
    "kill -9 at points of the writer": lambda at: torture.killed_at_every_point(at, 61),
    "two commands on one folder": lambda at: torture.two_at_once(at, 2, random.Random(1)),
    "a full disk": lambda at: torture.out_of_disk(at, [0, 40_000]),
    "a terminal that is closed": lambda at: torture.left_by_its_terminal(at, 2, random.Random(1)),
    "hostile files": lambda at: torture.read_hostile_files(at, 3, random.Random(1)),
}


@pytest.mark.parametrize("campaign", SAMPLES.values(), ids=SAMPLES)
def test_a_sample_of(tmp_path, campaign):
    assert campaign(tmp_path).total() > 0
