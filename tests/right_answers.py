"""Right answers to the exercises that are not the printed ones, by checker.

Each is (what is different, text in the printed solution, what it becomes).
"""

RIGHT = {
    "check_window_odds": [
        ("a number of NumPy", "10_000 - 100", "__import__('numpy').int64(9_900)"),
    ],
    "check_table_gradient": [
        ("a product with one-hot vectors",
         "return d_table.index_add(0, inputs, d_logits / len(targets))",
         "return F.one_hot(inputs, len(table)).float().T @ d_logits / len(targets)"),
        ("a loop", "return d_table.index_add(0, inputs, d_logits / len(targets))",
         "for row, i in zip(d_logits, inputs): d_table[i] += row / len(targets)\n"
         "    return d_table"),
    ],
    "check_stable_cross_entropy": [
        ("picks the target by one-hot", "logits[torch.arange(len(targets)), targets]",
         "(logits * F.one_hot(targets, logits.shape[1])).sum(1)"),
    ],
    "check_trigram_lm": [
        ("begins at zero", "nn.Embedding((vocab_size + 1) * vocab_size, vocab_size)",
         "nn.Embedding.from_pretrained(torch.zeros((vocab_size + 1) * vocab_size, vocab_size),"
         " freeze=False)"),
    ],
    "check_running_mean": [
        ("a loop", "x.cumsum(dim=1) / counts",
         "torch.stack([x[:, : i + 1].mean(dim=1) for i in range(len(counts))], dim=1)"),
    ],
    "check_mended_attention": [
        ("PyTorch's own function",
         "weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)\n"
         "    return weights @ value",
         "return F.scaled_dot_product_attention(query, key, value, is_causal=True)"),
    ],
    "check_gradient_probe": [
        ("by torch.func", "torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x)",
         "torch.func.jacrev(lambda x: layer(x[None])[0])(x)"),
    ],
    "check_rms_norm": [
        ("by PyTorch's own function",
         "x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * self.weight",
         "F.rms_norm(x, x.shape[-1:], self.weight, 1e-5)"),
    ],
    "check_stream": [
        ("a list of the two", "return self.lm_head(self.norm(stream[-1])), torch.stack(stream)",
         "return [self.lm_head(self.norm(stream[-1])), torch.stack(stream)]"),
    ],
    "check_adamw_on_paper": [
        ("an array", "answer = a1, b1, a2", "answer = __import__('numpy').array([a1, b1, a2])"),
    ],
    "check_save_and_restore": [
        ("in two files", '    torch.save(state, path)\n',
         '    torch.save(generator.get_state(), str(path) + ".generator")\n'
         '    torch.save(state, path)\n'),
    ],
    "check_open_task": [
        ("a list", 'return load_corpus("pydocs"), size, TrainConfig(steps=steps)',
         'return [load_corpus("pydocs"), size, TrainConfig(steps=steps)]'),
    ],
    "check_cache_cost": [
        ("a tensor", "answer = without, with_cache, 2 * 8 * 256 * 384 * 4",
         "answer = __import__('torch').tensor([without, with_cache, 2 * 8 * 256 * 384 * 4])"),
    ],
    "check_beam_search": [
        ("asks the first distribution twice", "    beams = [(0.0, start)]\n",
         "    beams, V = [(0.0, start)], len(log_probs_after(start))\n"),
    ],
    "check_unknown_layer": [
        ("written out",
         "    return layer.merge_heads(F.scaled_dot_product_attention(query, key, key,"
         " is_causal=True))",
         "    scores = query @ key.mT / key.shape[-1] ** 0.5\n"
         "    future = torch.ones_like(scores, dtype=torch.bool).triu(1)\n"
         "    weights = scores.masked_fill(future, float('-inf')).softmax(-1)\n"
         "    return layer.merge_heads(weights @ key)"),
    ],
    "check_copied_share": [
        ("a number of NumPy", "return sum(copied) / len(validation)",
         "return __import__('numpy').float32(sum(copied) / len(validation))"),
    ],
    "check_times_as_long": [
        ("names in another order", "for name in works}", "for name in reversed(works)}"),
    ],
    "check_said_from": [
        ("by einsum", "return scaled @ model.lm_head.weight.T",
         "return torch.einsum('bijc,vc->bijv', scaled, model.lm_head.weight)"),
    ],
    "check_composition_scores": [
        ("the whole W_OV", "together = W[:, a * D : (a + 1) * D] @ values",
         "together = W @ torch.nn.functional.pad(values, (0, 0, a * D, (H - 1 - a) * D))"),
    ],
    "check_attend": [
        ("written out",
         "    return F.scaled_dot_product_attention(query, key, value, is_causal=True)",
         "    scores = query @ key.mT / query.shape[-1] ** 0.5\n"
         "    future = scores.new_ones(scores.shape[-2:]).triu(1) > 0\n"
         "    return scores.masked_fill(future, -float('inf')).softmax(-1) @ value"),
    ],
    "check_by_chance": [
        ("Python's own generator", "group = members[torch.randperm(len(members))]",
         "group = torch.zeros_like(members)\n"
         "        group[__import__('random').sample(range(len(members)), int(members.sum()))] ="
         " True"),
    ],
    "check_my_sequences": [
        ("torch's generator, put back afterwards",
         "    generator = torch.Generator().manual_seed(epoch)\n"
         "    order = torch.randperm(num_sequences, generator=generator)",
         "    with torch.random.fork_rng():\n"
         "        torch.manual_seed(epoch)\n"
         "        order = torch.randperm(num_sequences)"),
    ],
    "check_head_entropy": [
        ("float64", "return -torch.xlogy(maps, maps)",
         "return -torch.xlogy(maps.double(), maps.double())"),
    ],
    "check_after_backward": [
        ("divides first",
         "    dist.all_reduce(weight.grad)\n    weight.grad /= dist.get_world_size()",
         "    weight.grad /= 2\n    dist.all_reduce(weight.grad)"),
    ],
    "check_batch_gradient": [("float64", "count * part for", "count * part.double() for")],
    "check_scaled_step": [
        ("a list of the three", "return weight, scale / 2, 0", "return [weight, scale / 2, 0]"),
    ],
    "check_fitting_state": [
        ("words that are parts of names", "these weights belong to another model",
         "missing in a table of biases, unexpected or of another shape"),
        ("copies", "    return state",
         "    return {name: value.clone() for name, value in state.items()}"),
    ],
    "check_attention_class": [
        ("PyTorch's fused attention",
         "        weights = self.dropout(scores.masked_fill(future, -torch.inf).softmax(dim=-1))\n"
         "        return (weights @ v)",
         "        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True,"
         " dropout_p=self.dropout.p if self.training else 0.0)\n"
         "        return mixed"),
        ("the fused one in evaluation only", "return (weights @ v).transpose",
         "mixed = weights @ v if self.training else nn.functional.scaled_dot_product_attention(q,"
         " k, v, is_causal=True)\n"
         "        return mixed.transpose"),
    ],
    "check_gpt_class": [
        ("goes from block to block", "return self.lm_head(self.norm(self.blocks(self.dropout(x))))",
         "x = self.dropout(x)\n"
         "        for block in self.blocks: x = block(x)\n"
         "        return self.lm_head(self.norm(x))"),
    ],
}
