"""Right answers to the exercises that are not the printed ones, by checker.

Each is (what is different, text in the printed solution, what it becomes).
"""

RIGHT = {
    "check_share_lost": [
        ("a fraction", "sum(char not in chars for char in text) / len(text)",
         "__import__('fractions').Fraction(sum(char not in chars for char in text), len(text))"),
    ],
    "check_window_odds": [
        ("a number of NumPy", "10_000 - 100", "__import__('numpy').int64(9_900)"),
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
    "check_to_orthogonal": [("float32", "return x\n", "return x.float()\n")],
    "check_by_chance": [
        ("Python's own generator", "group = members[torch.randperm(len(members))]",
         "group = torch.zeros_like(members)\n"
         "        group[__import__('random').sample(range(len(members)), int(members.sum()))] ="
         " True"),
    ],
    "check_my_windows": [
        ("torch's generator, put back afterwards",
         "    generator = torch.Generator().manual_seed(epoch)\n"
         "    order = torch.randperm(num_windows, generator=generator)",
         "    with torch.random.fork_rng():\n"
         "        torch.manual_seed(epoch)\n"
         "        order = torch.randperm(num_windows)"),
    ],
    "check_head_entropy": [
        ("float64", "return -torch.xlogy(maps, maps)",
         "return -torch.xlogy(maps.double(), maps.double())"),
    ],
    "check_batch_gradient": [("float64", "windows * part for", "windows * part.double() for")],
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
