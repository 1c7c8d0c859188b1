"""What tells the faults of the bug zoo apart, in words: for the quiz of the site."""
from typing import NamedTuple


class Clue(NamedTuple):
    "A diagnosis and its evidence."
    look: str  # at what, when the diagnosis was missed
    shows: str  # what such a model shows
    section: str  # of notebook 09 that says more, its heading


NO_MISTAKE = "no mistake in the code"  # the diagnosis of a healthy model
CLUES = {
    "mask off by one": Clue(
        "the map: does any output depend on an input after it?",
        "one diagonal of the future: each position sees the very next one, so that it can copy the "
        "answer; the loss is far too low, and the text that it writes is nonsense",
        "Who depends on whom?"),
    "mask after softmax": Clue(
        "the map, and what the weights sum to at the first and at the last position",
        "all depends on all, and early weights sum to less than one: the future is hidden only "
        "after it took its share of the softmax",
        "Who depends on whom?"),
    "softmax over the wrong axis": Clue(
        "the map, and what the weights sum to at the first and at the last position",
        "all depends on all, and the sum of the weights grows from position to position beyond "
        "one: columns sum to one where rows should",
        "Who depends on whom?"),
    "scale missing": Clue(
        "what is in order, the map and the sums: what is left that could be wrong in attention",
        "attention unlike the reference although its map is causal and its weights sum to one: "
        "only the size of the scores is left, and the loss is a little too high",
        "Compare with a reference"),
    "wrong-order reshape": Clue(
        "the map: holes in the past, and something of the future",
        "a map with holes in the past and patches of the future: numbers went to the wrong "
        "positions when the heads were split",
        "Who depends on whom?"),
    "positions missing": Clue(
        "the weights that get no gradient",
        "a position embedding that no gradient reaches and no step moves: one character repeated "
        "gets the same answer everywhere",
        "The bug zoo"),
    "weights shared by accident": Clue(
        "which parameters the two blocks have",
        "blocks that share their parameters: fewer numbers than it should have, and a curve that "
        "hardly shows it",
        "The bug zoo"),
    "dropout left on": Clue(
        "whether the model gives the same answer twice",
        "two evaluations of the same input that differ, and a curve that hardly shows it",
        "The bug zoo"),
    "targets not shifted": Clue(
        "both losses, and which targets the batch has",
        "targets that are not the next character: the training loss goes to zero, since the answer "
        "is the input, and the validation loss explodes",
        "The bug zoo"),
    "zero_grad missing": Clue(
        "what a step does with gradients that are there already",
        "a step that adds the gradients of the steps before it: the loss climbs and climbs",
        "What to log"),
    "learning rate too high": Clue(
        "what ten steps reach at the rate, and at a thirtieth of it",
        "a loss that leaps and then stays on a plateau, while a thirtieth of the rate would get "
        "lower: many units are dead, and attention has collapsed",
        "What to log"),
    "validation set overlaps": Clue(
        "the loss on another text",
        "a validation set that it was trained on: its training is that of the healthy twin, its "
        "validation loss is too good, and on another text that advantage is gone",
        "The bug zoo"),
    "trained in evaluation mode": Clue(
        "how the validation loss moves while the training loss falls, and whether dropout works",
        "steps without the dropout that the model has: it memorises the text, and its validation "
        "loss rises where that of the twin does not",
        "The bug zoo"),
    NO_MISTAKE: Clue(
        "the healthy twins: do they look any different?",
        "a curve like those of its healthy twins, and no measurement that names a mistake: what "
        "looks odd is chance, or too little text",
        "An order of work"),
}
