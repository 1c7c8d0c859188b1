"""Faults that `diagnose` was not written for. They were collected before it was mended, and are
trained and handed to it by `benchmarks/diagnose.py`, which says what an entry may hold. Since then
`diagnose` knows some of them by name: what it does with new ones, only new ones can show."""
import copy
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from minigpt_course.block import FeedForward, GPTDecoderBlock
from minigpt_course.gpt import GPT
from minigpt_course.multihead import MultiHeadAttention
from minigpt_course.optimizers import make_optimizer
from minigpt_course.text import get_batch

RATE = 6e-3  # of the healthy runs


def turned(kind: type, part: str = "attention"):
    "Every such part of each block becomes one of another class; the weights stay."
    def change(model):
        for block in model.blocks: (getattr(block, part) if part else block).__class__ = kind
    return change


# attention


class ScaledByWidth(MultiHeadAttention):
    "The square root of C where that of the head size belongs."
    def forward(self, x):
        query, key, value = self.split_heads(x)
        scale = x.shape[-1] ** -0.5
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return self.merge_heads(mixed)


class NoMask(MultiHeadAttention):
    "`is_causal` was forgotten."
    def forward(self, x):
        return self.merge_heads(F.scaled_dot_product_attention(*self.split_heads(x)))


class KeyForValue(MultiHeadAttention):
    "A line that was copied: the keys are what is mixed."
    def forward(self, x):
        query, key, _ = self.split_heads(x)
        return self.merge_heads(F.scaled_dot_product_attention(query, key, key, is_causal=True))


class MergedByView(MultiHeadAttention):
    "Heads are put together without transposing them first."
    def merge_heads(self, x):
        return self.out_proj(x.reshape(x.shape[0], x.shape[2], -1))


class OverTheBatch(MultiHeadAttention):
    "Batch and time are exchanged, as where `batch_first=True` is forgotten."
    def forward(self, x):
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


# blocks


class NoResidualOfAttention(GPTDecoderBlock):
    def forward(self, x):
        x = self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class NoResidualOfFeedForward(GPTDecoderBlock):
    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return self.feed_forward(self.norm2(x))


class DetachedStream(GPTDecoderBlock):
    "No gradient goes along the residual stream."
    def forward(self, x):
        x = x.detach() + self.attention(self.norm1(x))
        return x.detach() + self.feed_forward(self.norm2(x))


class NoActivation(FeedForward):
    def forward(self, x): return self.dropout(self.down_proj(self.up_proj(x)))


class ActivationLast(FeedForward):
    def forward(self, x): return self.activation(self.down_proj(self.up_proj(x)))


class NormOverTime(nn.LayerNorm):
    "Mean and variance over the positions instead of the channels."
    def forward(self, x):
        mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean) / (var + self.eps).sqrt() * self.weight + self.bias


# whole models


class FirstPositionEverywhere(GPT):
    def embed(self, idx, start=0):
        return self.token_embedding(idx) + self.position_embedding.weight[:1]


class Probabilities(GPT):
    "Softmax in the model, and once more in the loss."
    def forward(self, idx): return super().forward(idx).softmax(-1)


def of_class(kind):
    def change(model): model.__class__ = kind
    return change


def without_final_norm(model): model.norm = nn.Identity()


def default_head(model): model.lm_head.reset_parameters()


def loud_head(model): nn.init.normal_(model.lm_head.weight, std=50 / model.config.embed_dim)


def tiny_start(model):
    for weight in model.blocks.parameters():
        if weight.dim() == 2: nn.init.normal_(weight, std=1e-6)


def frozen_blocks(model): model.blocks.requires_grad_(False)


def frozen_embeddings(model):
    model.token_embedding.requires_grad_(False)
    model.position_embedding.requires_grad_(False)


def too_much_dropout(model): return GPT(dataclasses.replace(model.config, dropout=0.9))


# data


def shifted_twice(*arguments):
    inputs, targets = get_batch(*arguments)
    return inputs[:, :-1], targets[:, 1:]


def shifted_back(*arguments):
    inputs, targets = get_batch(*arguments)
    return targets, inputs


def in_reading_order():
    "Windows that follow each other, never shuffled: those of a batch begin one place apart."
    place = 0
    def batch(ids, size, length, generator):
        nonlocal place
        starts = (place + torch.arange(size)) % (len(ids) - length - 1)
        windows = ids[starts[:, None] + torch.arange(length + 1)]
        place += size
        return windows[:, :-1], windows[:, 1:]
    return batch


def always_the_same(ids, size, length, generator):
    return get_batch(ids, size, length, torch.Generator().manual_seed(0))


def one_window_a_batch(ids, size, length, generator):
    inputs, targets = get_batch(ids, 1, length, generator)
    return inputs.expand(size, -1), targets.expand(size, -1)


def noisy_targets(ids, size, length, generator):
    inputs, targets = get_batch(ids, size, length, generator)
    wrong = torch.rand(targets.shape, generator=generator) < 0.3
    return inputs, torch.where(wrong, targets.flip(1), targets)


def half_padding(ids, size, length, generator):
    inputs, targets = get_batch(ids, size, length, generator)
    padding = torch.arange(length) >= length // 2
    return inputs.masked_fill(padding, 0), targets.masked_fill(padding, 0)


def other_ids_for_validation(train_ids, validation_ids):
    others = torch.randperm(77, generator=torch.Generator().manual_seed(1))
    return train_ids, others[validation_ids]


def validation_trained_on(train_ids, validation_ids):
    return torch.cat([validation_ids, train_ids[:60_000]]), validation_ids


# steps and optimizers


def without_norms(model, config):
    weights = [weight for name, weight in model.named_parameters() if "norm" not in name]
    return torch.optim.AdamW(weights, lr=config.learning_rate)


def of_a_copy(model, config):
    return make_optimizer(copy.deepcopy(model), config)


def sgd(model, config): return torch.optim.SGD(model.parameters(), lr=config.learning_rate)


def fast_sgd(model, config): return torch.optim.SGD(model.parameters(), lr=0.3)


def zeroed_too_late(model, optimizer, inputs, targets, grad_clip):
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item(), 0.0


def summed_loss(model, optimizer, inputs, targets, grad_clip):
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item() / targets.numel(), 0.0


def uphill(model, optimizer, inputs, targets, grad_clip):
    "The sign of the loss is lost on the way."
    loss = -F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return -loss.item(), 0.0


FAULTS = {
    "no residual around attention": {"model": turned(NoResidualOfAttention, ""),
        "names": ["residual connection around attention missing"]},
    "no residual around feed-forward": {"model": turned(NoResidualOfFeedForward, ""),
        "names": ["residual connection around feed_forward missing"]},
    "stream detached": {"model": turned(DetachedStream, "")},
    "no activation": {"model": turned(NoActivation, "feed_forward"),
        "names": ["activation function missing"]},
    "activation after the second matrix": {"model": turned(ActivationLast, "feed_forward")},
    "no final norm": {"model": without_final_norm,
        "names": ["final norm missing"]},
    "LayerNorm over time": {"model": turned(NormOverTime, "norm1"),
        "names": ["a look into the future"]},
    "scores divided by the root of C": {"model": turned(ScaledByWidth),
        "names": ["scaled by the width"]},
    "no mask": {"model": turned(NoMask), "names": ["mask missing"]},
    "keys mixed instead of values": {"model": turned(KeyForValue)},
    "heads merged by view": {"model": turned(MergedByView), "names": ["wrong-order reshape"]},
    "attention over the batch": {"model": turned(OverTheBatch),
        "names": ["sequences of a batch mixed"]},
    "first position everywhere": {"model": of_class(FirstPositionEverywhere),
                                  "names": ["positions missing"]},
    "softmax twice": {"model": of_class(Probabilities),
        "names": ["softmax in the model"]},
    "head with torch's default start": {"model": default_head},
    "head starts 50 times too large": {"model": loud_head, "names": ["a bad start"]},
    "blocks start almost at zero": {"model": tiny_start},
    "dropout 0.9": {"model": too_much_dropout},
    "blocks frozen": {"model": frozen_blocks},
    "embeddings frozen": {"model": frozen_embeddings},
    "norms not in the optimizer": {"optimizer": without_norms},
    "optimizer of a copy": {"optimizer": of_a_copy},
    "SGD at AdamW's rate": {"optimizer": sgd},
    "betas exchanged": {"config": {"betas": (0.95, 0.8)}},
    "rate 100 times too low": {"config": {"learning_rate": RATE / 100}},
    "rate 20 times too high, no warm-up": {"config": {"learning_rate": 20 * RATE,
                                                      "warmup_steps": 0},
                                           "names": ["learning rate too high"]},
    "weight decay 100 times too large": {"config": {"weight_decay": 10.0}},
    "gradients cut to 0.001": {"config": {"grad_clip": 1e-3}},
    "clipping far too tight for SGD": {"optimizer": fast_sgd, "config": {"grad_clip": 1e-3}},
    "gradients zeroed before the step": {"step": zeroed_too_late},
    "uphill": {"step": uphill},
    "loss summed, not clipped": {"step": summed_loss},
    "targets shifted twice": {"batch": shifted_twice,
        "names": ["targets shifted twice", "targets that are not the next characters"]},
    "targets one back": {"batch": shifted_back,
                         "names": ["targets that are not the next characters"]},
    "three in ten targets wrong": {"batch": noisy_targets,
                                   "names": ["targets that are not the next characters"]},
    "half of each window is padding": {"batch": half_padding},
    "batches in reading order": {"make_batch": in_reading_order},
    "always the same batch": {"batch": always_the_same},
    "one window a batch": {"batch": one_window_a_batch},
    "other ids for validation": {"texts": other_ids_for_validation},
    "trained on the validation text": {"texts": validation_trained_on,
                                       "names": ["validation set overlaps"]},
}
