"""Ten mistakes as people really make them when they write or train a small GPT, written after
`diagnose` was mended by somebody who had not read it, and tried once. The names that are allowed
were judged afterwards."""

import torch
import torch.nn.functional as F
from torch import nn

from minigpt_course.gpt import GPT
from minigpt_course.multihead import MultiHeadAttention


# model

class MergeByReshape(MultiHeadAttention):
    def merge_heads(self, x):  # (B, H, T, D)
        B, H, T, D = x.shape
        return self.out_proj(x.contiguous().view(B, T, H * D))  # the transpose(1, 2) is missing


def heads_merged_without_transpose(model):
    """Heads are joined by .view(B, T, C) straight from (B, H, T, D), without transposing
    first: positions and heads get mixed up."""
    for block in model.blocks: block.attention.__class__ = MergeByReshape
    return model


class LayerNorm1d(nn.LayerNorm):
    def forward(self, x):  # right for (B, C), here it gets (B, T, C)
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return self.weight * (x - mean) / torch.sqrt(variance + self.eps) + self.bias


def layernorm_over_dim_1(model):
    """A hand-written LayerNorm for (B, C) takes its mean and variance over dim 1, which is
    time in (B, T, C)."""
    for part in model.modules():
        if type(part) is nn.LayerNorm: part.__class__ = LayerNorm1d
    return model


class LoopOverBlocks(nn.Sequential):
    def forward(self, x):
        for block in self:
            out = block(x)  # x = block(x) was meant
        return out


def loop_does_not_reassign_x(model):
    """The loop over the blocks says `out = block(x)` instead of `x = block(x)`: every block
    gets the embeddings, only the last one counts."""
    model.blocks.__class__ = LoopOverBlocks
    return model


class ProbabilitiesGPT(GPT):
    def forward(self, idx): return super().forward(idx).softmax(dim=-1)


def softmax_before_cross_entropy(model):
    """The model returns softmax probabilities, and F.cross_entropy applies its own softmax to
    them once more."""
    model.__class__ = ProbabilitiesGPT
    return model


# data

def unshuffled_sliding_windows():
    """A Dataset of windows ids[i : i + T + 1] for every i, read by a DataLoader that forgot
    shuffle=True: batches of near-copies, in order, from the start of the text."""
    upto = {}  # length of a text to the next window

    def batch(ids, batch_size, context_length, generator=None):
        windows = len(ids) - context_length
        first = upto.get(len(ids), 0)
        upto[len(ids)] = (first + batch_size) % windows
        starts = (first + torch.arange(batch_size)) % windows
        taken = ids[starts[:, None] + torch.arange(context_length + 1)]
        return taken[:, :-1], taken[:, 1:]

    return batch


def vocabulary_fitted_on_each_split(train_ids, validation_ids):
    """Each split is encoded by a vocabulary fitted on itself, Counter(text).most_common():
    the same id means different characters in training and validation."""
    size = int(max(train_ids.max(), validation_ids.max())) + 1
    by_rank = [torch.bincount(ids, minlength=size).argsort(descending=True, stable=True)
               for ids in (train_ids, validation_ids)]
    meaning = torch.empty(size, dtype=torch.long)
    meaning[by_rank[1]] = by_rank[0]  # of one rank, and of two meanings
    return train_ids, meaning[validation_ids]


def padding_counted_in_loss(ids, batch_size, context_length, generator=None):
    """Short pieces of text are padded with id 0 up to the context length, and the loss has no
    ignore_index: most targets are padding."""
    starts = torch.randint(len(ids) - context_length, (batch_size, 1), generator=generator)
    low, high = max(1, context_length // 8), context_length // 2 + 1
    lengths = torch.randint(low, high, (batch_size, 1), generator=generator)
    places = torch.arange(context_length + 1)
    windows = ids[starts + places].masked_fill(places >= lengths, 0)
    return windows[:, :-1], windows[:, 1:]


# optimisation

def logits_viewed_as_b_v_t(model, optimizer, inputs, targets, grad_clip):
    """cross_entropy wants (B, V, T), and the logits (B, T, V) are brought there by .view
    instead of .transpose(1, 2): targets are compared with numbers of other positions."""
    logits = model(inputs)
    B, T, V = logits.shape
    loss = F.cross_entropy(logits.reshape(B, V, T), targets)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return loss.item()


def adam_with_l2_decay(model, config):
    """torch.optim.Adam with weight_decay=0.1, the number that goes with AdamW: it is added to
    the gradient and normalised with it, and it hits all parameters."""
    return torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=config.betas,
                            weight_decay=config.weight_decay or 0.1)


def optimizer_made_in_the_loop(model, optimizer, inputs, targets, grad_clip):
    """`optimizer = AdamW(...)` stands inside the training loop: its moments start from zero
    in every step, so that each step is the rate times the gradient's sign."""
    optimizer.state.clear()  # as good as new
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return loss.item()


FAULTS = {
    "heads merged without transpose": {
        "model": heads_merged_without_transpose, "names": ["wrong-order reshape"]},
    "LayerNorm over dim 1 (time)": {
        "model": layernorm_over_dim_1, "names": ["a look into the future"]},
    "loop does not reassign x": {"model": loop_does_not_reassign_x},
    "softmax before cross_entropy": {
        "model": softmax_before_cross_entropy, "names": ["softmax in the model"]},
    "unshuffled sliding windows": {"make_batch": unshuffled_sliding_windows},
    "vocabulary fitted on each split": {"texts": vocabulary_fitted_on_each_split},
    "padding counted in the loss": {"batch": padding_counted_in_loss},
    "logits viewed as (B, V, T)": {"step": logits_viewed_as_b_v_t},
    "Adam with L2 decay instead of AdamW": {"optimizer": adam_with_l2_decay},
    "optimizer made anew in each step": {"step": optimizer_made_in_the_loop},
}
