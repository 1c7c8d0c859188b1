"""What heads of the published model look at, measured on the validation set: what the site's live
control of attention says about them."""
from typing import NamedTuple

import torch
from torch import Tensor

from minigpt_course.gpt import GPT
from minigpt_course.inside import ablated_head, attention_maps
from minigpt_course.text import CharTokenizer


class Share(NamedTuple):
    "How much of its weight a head puts on what is wanted, and what it would put there by chance."
    head: float
    even: float  # of a head that looks at all its past alike


def mean_share(
    weights: Tensor,  # (N, T, T) of one head
    looking: Tensor,  # (N, T) True for the positions that are asked
    wanted: Tensor,  # (N, T, T) True where they are expected to look
) -> Share:
    "The mean over the positions asked."
    even = torch.ones_like(weights).tril()
    even = even / even.sum(-1, keepdim=True)
    return Share(*((it * wanted).sum(-1)[looking].mean().item() for it in (weights, even)))


def back(weights: Tensor, offset: int) -> Share:
    "One head's share on the character so many places back."
    count, T, _ = weights.shape
    wanted = torch.ones(T, T).tril(-offset).triu(-offset).bool().expand(count, T, T)
    return mean_share(weights, wanted.any(-1), wanted)


def first_letters(weights: Tensor, texts: list[str]) -> Share:
    "A head's share, from spaces, on the letters with which words begin."
    letter = torch.tensor([[char.isalpha() for char in text] for text in texts])
    starts = letter.clone()
    starts[:, 1:] &= ~letter[:, :-1]
    space = torch.tensor([[char == " " for char in text] for text in texts])
    return mean_share(weights, space, starts[:, None].expand_as(weights))


def bracket_pairs(text: str) -> list[tuple[int, int]]:  # where each opens and closes
    "Brackets that are opened and closed in a text, with something between them."
    pairs, opened = [], []
    for i, char in enumerate(text):
        if char == "(": opened.append(i)
        if char == ")" and opened: pairs.append((opened.pop(), i))
    return [(begin, end) for begin, end in pairs if end - begin > 3]


def brackets(weights: Tensor, texts: list[str]) -> Share:
    "A head's share, from closing brackets, on the one that each closes."
    wanted = torch.zeros_like(weights, dtype=torch.bool)
    for n, text in enumerate(texts):
        for begin, end in bracket_pairs(text): wanted[n, end, begin] = True
    return mean_share(weights, wanted.any(-1), wanted)


@torch.no_grad()
def next_with_and_without(
    model: GPT,
    ids: Tensor,  # (T,)
    id: int,  # of the character that is asked for
    block: int,
    head: int,  # the one that is set to zero
) -> tuple[float, float]:  # with the head, and without
    "The probability of a character after a text, with a head and without it."
    def probability(): return model(ids[None])[0, -1].softmax(-1)[id].item()
    whole = probability()
    with ablated_head(model, block, head): return whole, probability()


def spaced(note: str) -> str:
    "With a space that does not break before each per cent sign."
    return note.replace("%", "\N{NO-BREAK SPACE}%")


def one_back(maps: Tensor) -> dict:  # maps (N, blocks, H, T, T)
    first, second, third = (back(maps[:, 0, head], places).head
                            for head, places in ((3, 1), (1, 2), (2, 3)))
    count = maps.shape[0] * (maps.shape[-1] - 1)  # nothing stands before the first
    return {"name": "one back", "text": "Return the first item of the list.", "position": 23,
            "block": 0, "head": 3, "note": spaced(
                f"Block 0, head 3 looks one back, whatever stands there: {first:.1%} of its "
                f"weight, on average over {count:,} characters of the validation set. Heads 1 and "
                f"2 look two and three back ({second:.0%} and {third:.0%}).")}


def open_bracket(model: GPT, tokenizer: CharTokenizer, maps: Tensor, texts: list[str]) -> dict:
    text, share = "Read the file again (in text mode", brackets(maps[:, 1, 0], texts)
    with_head, without = next_with_and_without(
        model, tokenizer.encode(text), tokenizer.chars.index(")"), block=1, head=0)
    return {"name": "the open bracket", "text": text, "position": len(text) - 1,
            "block": 1, "head": 0, "note": spaced(
                "Block 1, head 0 looks for the bracket that is still open: in the validation set "
                f"a closing bracket puts {share.head:.0%} on its partner (evenly spread: "
                f"{share.even:.0%}). Here the model gives “)” {with_head:.0%}; with this head’s "
                f"output set to zero, {without:.0%}. Take the bracket out of the text, and see.")}


def word_starts(maps: Tensor, texts: list[str]) -> dict:
    share = first_letters(maps[:, 1, 1], texts)
    return {"name": "first letters", "text": "Return a copy of the dictionary with the new value ",
            "position": 36, "block": 1, "head": 1, "note": spaced(
                "From a space, block 1, head 1 looks at the first letters of words: in the "
                f"validation set with {share.head:.0%} of its weight (evenly spread: "
                f"{share.even:.0%}). Go from space to space.")}


def presets(
    model: GPT,  # the published one
    tokenizer: CharTokenizer,
    validation: str,  # the text to measure on
    windows: int = 300,  # how many pieces of it
) -> list[dict]:  # name, text, position, block, head, note
    "Sentences in which a head's habit is to be seen, with what it does on average."
    T = model.config.context_length
    ids = tokenizer.encode(validation[: windows * T]).view(-1, T)
    maps, texts = attention_maps(model, ids), [tokenizer.decode(window) for window in ids]
    return [one_back(maps), open_bracket(model, tokenizer, maps, texts), word_starts(maps, texts)]
