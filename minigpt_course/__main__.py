"""What `python -m minigpt_course` runs."""
from minigpt_course.cli import main

main()
