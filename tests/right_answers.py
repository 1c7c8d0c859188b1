"""Right answers to the exercises that are not the printed ones, by checker.

Each is (what is different, text in the printed solution, what it becomes).
"""

from wrong_answers import BACKWARD

PARTS = (  # of the GPT that 14 prints, from its blocks to the end
    "nn.Sequential(*(GPTDecoderBlock(*sizes) for _ in range(config.num_blocks)))\n"
    "        self.norm = nn.LayerNorm(C)\n"
    "        self.lm_head = nn.Linear(C, config.vocab_size)\n"
    "        nn.init.normal_(self.lm_head.weight, std=1 / C)\n"
    "        nn.init.zeros_(self.lm_head.bias)\n"
    "\n"
    "    def forward(self, idx):\n"
    "        x = self.token_embedding(idx) + self.position_embedding.weight[: idx.shape[1]]\n"
    "        return self.lm_head(self.norm(self.blocks(self.dropout(x))))")

RIGHT = {
    "check_training_batch": [
        ("the course's own get_batch",
         "    starts = torch.randint(split - context_length, (batch_size,), generator=generator)"
         ".tolist()\n",
         "    from minigpt_course.text import get_batch\n"
         "    return get_batch(ids[:split], batch_size, context_length, generator)\n"),
        ("cuts inputs and targets at once",
         "    inputs = torch.stack([ids[s : s + context_length] for s in starts])\n"
         "    targets = torch.stack([ids[s + 1 : s + 1 + context_length] for s in starts])\n"
         "    return inputs, targets",
         "    both = ids.unfold(0, context_length + 1, 1)[starts]\n"
         "    return [both[:, :-1], both[:, 1:]]"),
    ],
    "check_window_odds": [
        ("a number of NumPy", "10_000 - 100", "__import__('numpy').int64(9_900)"),
    ],
    "check_byte_fallback": [
        ("decodes run by run",
         "    parts = [chars[i].encode() if i < len(chars) else bytes([i - len(chars)])"
         " for i in ids]\n"
         '    return b"".join(parts).decode(errors="replace")',
         '    text, run = "", b""\n'
         "    for i in ids:\n"
         "        if i < len(chars):\n"
         '            text, run = text + run.decode(errors="replace") + chars[i], b""\n'
         "        else:\n"
         "            run += bytes([i - len(chars)])\n"
         '    return text + run.decode(errors="replace")'),
        ("a dictionary", "        known = char in chars\n"
         "        ids += [chars.index(char)] if known else [len(chars) + byte for byte in"
         " char.encode()]",
         "        place = {c: i for i, c in enumerate(chars)}\n"
         "        ids.extend([place[char]] if char in place else\n"
         "                   (len(chars) + byte for byte in char.encode()))"),
    ],
    "check_pair_merge": [
        ("most_common", "max(counts, key=counts.get)", "counts.most_common(1)[0][0]"),
        ("looks back instead of ahead",
         "    while i < len(ids):\n"
         "        found = tuple(ids[i : i + 2]) == pair\n"
         "        merged.append(new_id if found else ids[i])\n"
         "        i += 2 if found else 1\n",
         "    for one in ids:\n"
         "        merged.append(one)\n"
         "        if tuple(merged[-2:]) == pair: merged[-2:] = [new_id]\n"),
    ],
    "check_loss_units": [
        ("tensors", "bits = (1 + 5) / 2",
         "bits = -__import__('torch').tensor([1 / 2, 1 / 32]).log2().mean()"),
        ("from the nats", "perplexity = 2**bits", "perplexity = math.exp(nats)"),
    ],
    "check_table_gradient": [
        ("a product with one-hot vectors",
         "return d_table.index_add(0, inputs, d_logits / len(targets))",
         "return F.one_hot(inputs, len(table)).float().T @ d_logits / len(targets)"),
        ("a loop", "return d_table.index_add(0, inputs, d_logits / len(targets))",
         "for row, i in zip(d_logits, inputs): d_table[i] += row / len(targets)\n"
         "    return d_table"),
        ("float64", "return d_table.index_add(0, inputs, d_logits / len(targets))",
         "return d_table.double().index_add(0, inputs, d_logits.double() / len(targets))"),
    ],
    "check_mean_loss": [
        ("by indexing", "probs.gather(-1, targets[..., None])",
         "probs[torch.arange(len(probs))[:, None], torch.arange(probs.shape[1]), targets]"),
        ("PyTorch's own", "return -right.log().mean()",
         "return F.cross_entropy(logits.flatten(0, 1), targets.flatten())"),
        ("in place", "probs = logits.softmax(dim=-1)",
         "probs = logits.exp_()\n    probs /= probs.sum(-1, keepdim=True)"),
    ],
    "check_trigram_lm": [
        ("begins at zero", "nn.Embedding((vocab_size + 1) * vocab_size, vocab_size)",
         "nn.Embedding.from_pretrained(torch.zeros((vocab_size + 1) * vocab_size, vocab_size),"
         " freeze=False)"),
    ],
    "check_stable_cross_entropy": [
        ("picks the target by one-hot", "logits[torch.arange(len(targets)), targets]",
         "(logits * F.one_hot(targets, logits.shape[1])).sum(1)"),
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
        ("D of the values", "query.shape[-1]", "value.shape[-1]"),
    ],
    "check_one_back": [
        ("the keys are large, not the queries",
         "query = key.roll(1, dims=0) * score * length**0.5\n    return query, key",
         "return key.roll(1, dims=0), key * score * length**0.5"),
        ("every position gives exactly its share",
         "score = math.log((length - 1) * share / (1 - share))",
         "rivals = torch.arange(length).clamp(min=1)[:, None]\n"
         "    score = (rivals * share / (1 - share)).log()"),
    ],
    "check_biased_weights": [
        ("negative distances count from the end, where the mask hides them",
         "bias[back.clamp(min=0)]", "bias[back]"),
        ("diagonal by diagonal", "scores = scores + bias[back.clamp(min=0)]",
         "for k, one in enumerate(bias):\n"
         "        scores = scores + torch.diag(one.expand(len(bias) - k), -k)"),
    ],
    "check_gradient_probe": [
        ("by torch.func", "torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x)",
         "torch.func.jacrev(lambda x: layer(x[None])[0])(x)"),
    ],
    "check_merge_unmerge": [
        ("heads joined one by one", "return mixed.transpose(1, 2).flatten(2)",
         "return torch.cat(mixed.unbind(1), dim=-1)"),
        ("chunks stacked", "return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)",
         "return torch.stack(x.chunk(num_heads, dim=-1), dim=1)"),
    ],
    "check_grouped_attention": [
        ("the keys expanded, the values repeated", "key.repeat_interleave(shared, dim=1)",
         "key[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2)"),
        ("a dimension for the groups",
         "    key = key.repeat_interleave(shared, dim=1)\n"
         "    value = value.repeat_interleave(shared, dim=1)\n"
         "    return F.scaled_dot_product_attention(query, key, value, is_causal=True)",
         "    weights = attention_weights(query.unflatten(1, (-1, shared)), key[:, :, None])\n"
         "    return (weights @ value[:, :, None]).flatten(1, 2)"),
    ],
    "check_attend_in_tiles": [
        ("the logarithm of the sum instead of maximum and sum",
         "        new = torch.maximum(highest, scores.max())\n"
         "        shrink, raised = (highest - new).exp(), (scores - new).exp()\n"
         "        total = total * shrink + raised.sum()\n"
         "        answer = answer * shrink + raised @ value\n"
         "        highest = new\n"
         "    return answer / total",
         "        new = torch.logaddexp(highest, scores.logsumexp(dim=0))\n"
         "        answer = answer * (highest - new).exp() + (scores - new).exp() @ value\n"
         "        highest = new\n"
         "    return answer"),
        ("position by position, in Python's numbers",
         "    highest, total, answer = torch.tensor(-torch.inf), 0.0, 0.0\n"
         "    for key, value in tiles:\n"
         "        scores = key @ query / len(query) ** 0.5\n"
         "        new = torch.maximum(highest, scores.max())\n"
         "        shrink, raised = (highest - new).exp(), (scores - new).exp()\n"
         "        total = total * shrink + raised.sum()\n"
         "        answer = answer * shrink + raised @ value\n"
         "        highest = new\n",
         "    import math\n"
         "    highest, total, answer = -math.inf, 0.0, torch.zeros_like(query)\n"
         "    for key, value in (pair for tile in tiles for pair in zip(*tile)):\n"
         "        score = (key @ query).item() / len(query) ** 0.5\n"
         "        new = max(highest, score)\n"
         "        shrink, raised = math.exp(highest - new), math.exp(score - new)\n"
         "        total = total * shrink + raised\n"
         "        answer = answer * shrink + raised * value\n"
         "        highest = new\n"),
    ],
    "check_einsum_heads": [
        ("PyTorch's attention between the einsums",
         '    scores = torch.einsum("bhtd,bhsd->bhts", q, k) / q.shape[-1] ** 0.5\n'
         "    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)\n"
         "    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)\n"
         '    return torch.einsum("bhts,bhsd->bthd", weights, v).flatten(2)',
         "    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
         '    return torch.einsum("bhtd->bthd", mixed).flatten(2)'),
        ("values and outputs in one einsum",
         'torch.einsum("bhts,bhsd->bthd", weights, v)',
         'torch.einsum("bhts,bsc,hcd->bthd", weights, x, wv)'),
    ],
    "check_attention_cost": [
        ("a list of whole numbers", "return parameters, making, looking, 1.5 * embed_dim",
         "return [parameters, making, int(looking), 3 * embed_dim // 2]"),
        ("the heads cancelled on paper", "num_heads * 2 * length**2 * head_dim",
         "2 * length**2 * embed_dim"),
    ],
    "check_dropout": [
        ("draws ones and zeros", "torch.rand_like(x) >= p",
         "torch.bernoulli(torch.full_like(x, 1 - p))"),
        ("chooses with where", "x * kept / (1 - p)", "torch.where(kept, x / (1 - p), 0.0)"),
    ],
    "check_mended_block": [
        ("names for what is in between",
         "x = x + attention(norm1(x))\n    return x + feed_forward(norm2(x))",
         "gathered = x + attention(norm1(x))\n"
         "    thought = feed_forward(norm2(gathered))\n"
         "    return gathered + thought"),
        ("a copy that grows in place", "x = x + attention(norm1(x))",
         "x = x.clone()\n    x += attention(norm1(x))"),
    ],
    "check_rms_norm": [
        ("by PyTorch's own function",
         "x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * self.weight",
         "F.rms_norm(x, x.shape[-1:], self.weight, 1e-5)"),
    ],
    "check_stream_growth": [
        ("result by result", "return (1 + 2 * num_blocks * added**2) ** 0.5",
         "square = 1.0\n"
         "    for _ in range(2 * num_blocks): square += added**2\n"
         "    return math.sqrt(square)"),
        ("a tensor", "return ((largest**2 - 1) / (2 * num_blocks)) ** 0.5",
         "return torch.tensor((largest**2 - 1) / (2 * num_blocks)).sqrt()"),
    ],
    "check_folded_norm": [
        ("asks linear about the shift",
         "folded.bias.data = linear.weight.data @ norm.bias.data\n"
         "    if linear.bias is not None: folded.bias.data += linear.bias.data",
         "folded.bias.data = linear(norm.bias).data"),
        ("a new parameter", "folded.weight.data = linear.weight.data * norm.weight.data",
         "folded.weight = nn.Parameter((linear.weight * norm.weight).detach())"),
    ],
    "check_modern_count": [
        ("C taken out of the sum", "4 * embed_dim**2 + 3 * embed_dim * hidden_dim + 2 * embed_dim",
         "embed_dim * (4 * embed_dim + 3 * hidden_dim + 2)"),
        ("a number of NumPy", "return num_blocks * block + embed_dim + 2 * vocab_size * embed_dim",
         "return __import__('numpy').int64(\n"
         "        num_blocks * block + embed_dim + 2 * vocab_size * embed_dim)"),
    ],
    "check_stream": [
        ("a list of the two", "return self.lm_head(self.norm(stream[-1])), torch.stack(stream)",
         "return [self.lm_head(self.norm(stream[-1])), torch.stack(stream)]"),
    ],
    "check_first_loss": [
        ("one logarithm", "math.log(vocab_size) + embed_dim * std**2 / 2",
         "math.log(vocab_size * math.exp(embed_dim * std**2 / 2))"),
        ("a tensor", "math.log(vocab_size)", "torch.tensor(float(vocab_size)).log()"),
    ],
    "check_tie": [
        ("the other way round, and drawn anew",
         "model.token_embedding.weight = model.lm_head.weight",
         "model.lm_head.weight = model.token_embedding.weight\n"
         "    nn.init.normal_(model.lm_head.weight, std=1 / model.config.embed_dim)"),
        ("a new parameter for both", "model.token_embedding.weight = model.lm_head.weight",
         "small = nn.Parameter(model.lm_head.weight.detach().clone())\n"
         "    model.token_embedding.weight = model.lm_head.weight = small"),
    ],
    "check_reading_flops": [
        ("a third of training at that length",
         "    C = config.embed_dim\n"
         "    matrices = config.num_blocks * (11 + config.output_projection) * C * C"
         " + C * config.vocab_size\n"
         "    pairs = config.num_blocks * length * length * C\n"
         "    return 2 * length * matrices + 4 * pairs",
         "    from dataclasses import replace\n"
         "    from minigpt_course.gpt import training_flops\n"
         "    return length * training_flops(replace(config, context_length=length)) // 3"),
        ("position by position", "return 2 * length * matrices + 4 * pairs",
         "return sum(2 * matrices + 4 * pairs // length for _ in range(length))"),
    ],
    "check_adamw_on_paper": [
        ("an array", "answer = a1, b1, a2", "answer = __import__('numpy').array([a1, b1, a2])"),
    ],
    "check_accumulate": [
        ("weighs by characters", "len(x) / len(inputs)", "y.numel() / targets.numel()"),
        ("sums, and divides by all characters",
         "y.flatten()) * (len(x) / len(inputs))",
         'y.flatten(), reduction="sum") / targets.numel()'),
        ("a loss without its graph", "loss.item()", "loss.detach()"),
        ("torch.autograd.grad, handed over at the end",
         "        loss.backward()\n        total += loss.item()\n    return total",
         "        found = torch.autograd.grad(loss, list(model.parameters()))\n"
         "        sums = [a + b for a, b in zip(sums, found)] if total else found\n"
         "        total += loss.item()\n"
         "    for weight, gradient in zip(model.parameters(), sums): weight.grad = gradient\n"
         "    return total"),
    ],
    "check_save_and_restore": [
        ("in two files", '    torch.save(state, path)\n',
         '    torch.save(generator.get_state(), str(path) + ".generator")\n'
         '    torch.save(state, path)\n'),
    ],
    "check_should_stop": [
        ("remembers where the best was",
         '    best, waited = float("inf"), 0\n'
         "    for _, loss in curve.validation():\n"
         "        if loss < best - least: best, waited = loss, 0\n"
         "        else: waited += 1\n"
         "    return waited >= patience",
         "    losses = [row[4] for row in curve.rows if row[4] is not None]\n"
         '    best, at = float("inf"), 0\n'
         "    for i, loss in enumerate(losses):\n"
         "        if best - loss > least: best, at = loss, i\n"
         "    return len(losses) - 1 - at >= patience"),
        ("returns nothing where it goes on", "    return waited >= patience",
         "    if waited >= patience: return True"),
    ],
    "check_open_task": [
        ("a list", 'return load_corpus("pydocs"), size, TrainConfig(steps=steps)',
         'return [load_corpus("pydocs"), size, TrainConfig(steps=steps)]'),
    ],
    "check_min_p": [
        ("masks the logits",
         "    kept = probs.where(probs >= share * probs.max(), 0.0)\n"
         "    return kept / kept.sum()",
         "    return logits.masked_fill(probs < share * probs.max(), -torch.inf).softmax(-1)"),
        ("asks for the ratio", "probs >= share * probs.max()", "probs / probs.max() >= share"),
    ],
    "check_cache_cost": [
        ("a tensor", "answer = without, with_cache, 2 * 8 * 256 * 384 * 4",
         "answer = __import__('torch').tensor([without, with_cache, 2 * 8 * 256 * 384 * 4])"),
        ("by the formula of a sum", "sum(range(10, 110))", "100 * (10 + 109) // 2"),
    ],
    "check_cached_lm": [
        ("the notebook's own attention",
         "        scores = head.query(x) @ self.keys.transpose(1, 2) / self.keys.shape[-1] ** 0.5\n"
         "        future = torch.ones_like(scores[0], dtype=torch.bool).triu(1 + past)\n"
         "        return model.lm_head(scores.masked_fill(future, -torch.inf).softmax(-1)"
         " @ self.values)",
         "        return model.lm_head(attend_to_past(head.query(x), self.keys, self.values))"),
        ("compares positions", "torch.ones_like(scores[0], dtype=torch.bool).triu(1 + past)",
         "torch.arange(past + T) > torch.arange(past, past + T)[:, None]"),
        ("asks the embedding for positions", "model.position_embedding.weight[past : past + T]",
         "model.position_embedding(torch.arange(past, past + T))"),
    ],
    "check_penalised": [
        ("the lower of the two",
         "changed[i] / penalty if changed[i] > 0 else changed[i] * penalty",
         "min(changed[i] / penalty, changed[i] * penalty)"),
        ("without a loop",
         "    changed = logits.clone()\n"
         "    for i in set(seen):\n"
         "        changed[i] = changed[i] / penalty if changed[i] > 0 else changed[i] * penalty\n"
         "    return changed",
         "    known = torch.tensor([i in seen for i in range(len(logits))])\n"
         "    lower = torch.where(logits > 0, logits / penalty, logits * penalty)\n"
         "    return torch.where(known, lower, logits)"),
    ],
    "check_beam_search": [
        ("asks the first distribution twice", "    beams = [(0.0, start)]\n",
         "    beams, V = [(0.0, start)], len(log_probs_after(start))\n"),
        ("by heapq", "sorted(longer, reverse=True)[:width]",
         "__import__('heapq').nlargest(width, longer)"),
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
    "check_mended_fit": [
        ("all windows at once", "torch.stack([ids[start : start + 9] for start in row])",
         "ids[row[:, None] + torch.arange(9)]"),
        ("clears the gradients itself", "optimizer.zero_grad()",
         "for weight in model.parameters(): weight.grad = None"),
        ("clears before the loop and after each step",
         "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n",
         "        if step == 0: optimizer.zero_grad()\n"
         "        loss.backward()\n        optimizer.step()\n        optimizer.zero_grad()\n"),
    ],
    "check_copied_share": [
        ("a number of NumPy", "return sum(copied) / len(validation)",
         "return __import__('numpy').float32(sum(copied) / len(validation))"),
        ("a search in a string",
         "    known = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}\n"
         "    copied = [False] * len(validation)\n"
         "    for i in range(len(validation) - n + 1):\n"
         "        if tuple(validation[i : i + n]) in known: copied[i : i + n] = [True] * n",
         "    train, text = (''.join(map(chr, part)) for part in (train, validation))\n"
         "    copied = [False] * len(text)\n"
         "    for i in range(len(text) - n + 1):\n"
         "        if text[i : i + n] in train: copied[i : i + n] = [True] * n"),
    ],
    "check_influence": [
        ("a norm over both", "gradients.pow(2).sum((1, 3)).sqrt()",
         "torch.linalg.vector_norm(gradients, dim=(1, 3))"),
        ("one derivative after the other",
         "    gradients = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0], x)"
         "  # (T, C, T, C)\n"
         "    return gradients.pow(2).sum((1, 3)).sqrt()",
         "    x = x.clone().requires_grad_()\n"
         "    squares = [sum(torch.autograd.grad(number, x, retain_graph=True)[0] ** 2\n"
         "                   for number in row) for row in layer(x[None])[0]]\n"
         "    return torch.stack([square.sum(1) for square in squares]).sqrt()"),
    ],
    "check_intensities": [
        ("a number at a time, in a list", "answer = a, b, c, d, e",
         "answer = [2 / 4, 2 / 4, 2 / 2, 6 * 2 / 4, 16 * 2 / 4]"),
        ("a tensor", "answer = a, b, c, d, e",
         "answer = __import__('torch').tensor([a, b, c, d, e])"),
    ],
    "check_times_as_long": [
        ("names in another order", "for name in works}", "for name in reversed(works)}"),
    ],
    "check_attend": [
        ("written out",
         "    return F.scaled_dot_product_attention(query, key, value, is_causal=True)",
         "    scores = query @ key.mT / query.shape[-1] ** 0.5\n"
         "    future = scores.new_ones(scores.shape[-2:]).triu(1) > 0\n"
         "    return scores.masked_fill(future, -float('inf')).softmax(-1) @ value"),
    ],
    "check_speed_up": [
        ("takes off what is saved",
         "1 / sum(share / factors.get(kind, 1) for kind, share in shares.items())",
         "1 / (1 - sum(shares[kind] * (1 - 1 / factor) for kind, factor in factors.items()))"),
    ],
    "check_head_entropy": [
        ("float64", "return -torch.xlogy(maps, maps)",
         "return -torch.xlogy(maps.double(), maps.double())"),
    ],
    "check_mean_head": [
        ("hands the mean to ablated_head",
         "    def replace(layer, inputs):\n"
         "        mixed = inputs[0].clone()\n"
         "        mixed[..., columns] = mean\n"
         "        return mixed\n"
         "    replacing = projection.register_forward_pre_hook(replace)\n"
         "    try: yield model\n"
         "    finally: replacing.remove()",
         "    from minigpt_course.inside import ablated_head\n"
         "    with ablated_head(model, block, head, mean): yield model"),
        ("measures without a hook of its own",
         "    measuring = projection.register_forward_pre_hook(lambda layer, inputs:"
         " seen.append(inputs[0]))\n"
         "    with measuring, torch.no_grad(): model(idx)"
         "  # the end of the with removes the hook\n"
         "    mean = seen[0][..., columns].mean((0, 1))\n",
         "    layer = model.blocks[block]\n"
         "    normed, = record(model, idx, [layer.norm1])\n"
         "    value = layer.attention.split_heads(normed)[2][:, head]\n"
         "    weights = attention_maps(model, idx)[:, block, head]\n"
         "    mean = (weights @ value).detach().mean((0, 1))\n"),
    ],
    "check_said_from": [
        ("by einsum", "return scaled @ model.lm_head.weight.T",
         "return torch.einsum('bijc,vc->bijv', scaled, model.lm_head.weight)"),
    ],
    "check_by_chance": [
        ("Python's own generator", "group = members[torch.randperm(len(members))]",
         "group = torch.zeros_like(members)\n"
         "        group[__import__('random').sample(range(len(members)), int(members.sum()))] ="
         " True"),
    ],
    "check_composition_scores": [
        ("the whole W_OV", "together = W[:, a * D : (a + 1) * D] @ values",
         "together = W @ torch.nn.functional.pad(values, (0, 0, a * D, (H - 1 - a) * D))"),
    ],
    "check_run_hours": [
        ("a prediction that is calculated", "prediction = 33",
         "prediction = 6 * 1e9 * 20e9 / (8 * 312e12 * 0.4) / 3600"),
        ("a rough prediction, and divides in turn",
         "prediction = 33\n"
         "\n"
         "def run_hours(parameters, tokens, rate, utilisation, num_devices):\n"
         "    operations = 6 * parameters * tokens\n"
         "    return operations / (num_devices * rate * utilisation) / 3600",
         "prediction = 30\n"
         "\n"
         "def run_hours(parameters, tokens, rate, utilisation, num_devices):\n"
         "    seconds = 6 * parameters * tokens / rate / utilisation / num_devices\n"
         "    return seconds / 60 / 60"),
    ],
    "check_after_backward": [
        ("divides first",
         "    dist.all_reduce(weight.grad)\n    weight.grad /= dist.get_world_size()",
         "    weight.grad /= 2\n    dist.all_reduce(weight.grad)"),
        ("a new tensor as the gradient",
         "    dist.all_reduce(weight.grad)\n    weight.grad /= dist.get_world_size()",
         "    total = weight.grad.clone()\n"
         "    dist.all_reduce(total)\n"
         "    weight.grad = total / dist.get_world_size()"),
        ("collects all gradients, and averages by itself",
         "    dist.all_reduce(weight.grad)\n    weight.grad /= dist.get_world_size()",
         "    parts = [torch.empty_like(weight.grad) for _ in range(dist.get_world_size())]\n"
         "    dist.all_gather(parts, weight.grad)\n"
         "    weight.grad = torch.stack(parts).mean(dim=0)"),
    ],
    "check_scaled_step": [
        ("a list of the three", "return weight, scale / 2, 0", "return [weight, scale / 2, 0]"),
        ("counts by the remainder",
         "    weight, good = weight - lr * gradient.float() / scale, good + 1\n"
         "    return (weight, scale * 2, 0) if good == patience else (weight, scale, good)",
         "    good = (good + 1) % patience\n"
         "    return weight - lr * (gradient.double() / scale), scale * (1 if good else 2), good"),
    ],
    "check_batch_gradient": [
        ("float64", "count * part for", "count * part.double() for"),
        ("asks for None", "for part, count in zip(parts, num_sequences) if count",
         "for part, count in zip(parts, num_sequences) if part is not None"),
    ],
    "check_my_sequences": [
        ("torch's generator, put back afterwards",
         "    generator = torch.Generator().manual_seed(epoch)\n"
         "    order = torch.randperm(num_sequences, generator=generator)",
         "    with torch.random.fork_rng():\n"
         "        torch.manual_seed(epoch)\n"
         "        order = torch.randperm(num_sequences)"),
        ("a stretch of the shuffled list for each",
         "order[: num_sequences // num_processes * num_processes][rank::num_processes]",
         "order[rank * (num_sequences // num_processes) :][: num_sequences // num_processes]"),
        ("PyTorch's DistributedSampler",
         "    order = torch.randperm(num_sequences, generator=generator)\n"
         "    return order[: num_sequences // num_processes * num_processes][rank::num_processes]",
         "    from torch.utils.data import DistributedSampler\n"
         "    sampler = DistributedSampler(range(num_sequences), num_processes, rank,"
         " drop_last=True)\n"
         "    sampler.set_epoch(epoch)\n"
         "    return torch.tensor(list(sampler))"),
        ("Python's own generator",
         "    generator = torch.Generator().manual_seed(epoch)\n"
         "    order = torch.randperm(num_sequences, generator=generator)",
         "    import random\n"
         "    order = torch.tensor(random.Random(epoch).sample(range(num_sequences),"
         " num_sequences))"),
    ],
    "check_split_c_attn": [
        ("cuts first, transposes then", "weight.T.contiguous().chunk(3)",
         "[part.T.contiguous() for part in weight.chunk(3, dim=1)]"),
        ("by slices, in a tuple",
         "return list(zip(weight.T.contiguous().chunk(3), bias.chunk(3)))",
         "C = len(weight)\n"
         "    return tuple((weight[:, i : i + C].T.contiguous(), bias[i : i + C])"
         " for i in (0, C, 2 * C))"),
    ],
    "check_fitting_state": [
        ("words that are parts of names", "these weights belong to another model",
         "missing in a table of biases, unexpected or of another shape"),
        ("copies", "    return state",
         "    return {name: value.clone() for name, value in state.items()}"),
        ("strikes names off the list", "    if wrong: raise",
         "    for name in state: wanted.pop(name, None)\n    if wrong: raise"),
    ],
    "check_header_shapes": [
        ("looks at what the slice gave", "len(content) < 8 + length",
         "len(content[8 : 8 + length]) < length"),
        ("refuses gaps and overlaps too",
         '    ends = max((entry["data_offsets"][1] for entry in header.values()), default=0)\n',
         "    ends = 0\n"
         '    for begin, end in sorted(entry["data_offsets"] for entry in header.values()):\n'
         '        if begin != ends: raise ValueError(f"a gap or an overlap at {begin}")\n'
         "        ends = end\n"),
        ("words like those of the JSON reader",
         'f"{ends} bytes of numbers are due, {len(content) - 8 - length} are there"',
         '"Extra data behind the last tensor, or too little"'),
    ],
    "check_shards": [
        ("storage and offset", "tensor.data_ptr(), tensor.shape",
         "tensor.untyped_storage().data_ptr(), tensor.storage_offset()"),
        ("leaves doubles out first, then fills",
         "    parts, seen, size = [], set(), 0\n"
         "    for name, tensor in state.items():\n"
         "        place = tensor.data_ptr(), tensor.shape"
         "  # a part may begin where the whole does\n"
         "        if tensor.numel() and place in seen: continue\n"
         "        seen.add(place)\n"
         "        if not parts or size + tensor.nbytes > most: parts, size = parts + [{}], 0\n",
         "    first, parts, size = {}, [], float('inf')\n"
         "    for name, tensor in state.items(): first.setdefault(tensor.data_ptr(), name)\n"
         "    for name in first.values():\n"
         "        tensor = state[name]\n"
         "        if size + tensor.nbytes > most: parts, size = parts + [{}], 0\n"),
    ],
    "check_tokenizer_class": [
        ("counts a sorted text, so that ties are in order",
         'counts = Counter(text.replace("�", ""))\n'
         "        kept = sorted(counts, key=lambda char: (-counts[char], char))[: vocab_size - 1]",
         'counts = Counter(sorted(text.replace("�", "")))\n'
         "        kept = [char for char, _ in counts.most_common(vocab_size - 1)]"),
        ("a list of characters", '"�" + "".join(sorted(kept))', '["�", *sorted(kept)]'),
        ("number by number", "torch.as_tensor(ids, dtype=torch.long).tolist()", "map(int, ids)"),
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
    "check_block_class": [
        ("feed-forward as a sequence with names",
         "self.feed_forward = FeedForward(embed_dim, dropout)",
         "self.feed_forward = nn.Sequential()\n"
         '        self.feed_forward.add_module("up_proj", nn.Linear(embed_dim, 4 * embed_dim))\n'
         '        self.feed_forward.add_module("relu", nn.ReLU())\n'
         '        self.feed_forward.add_module("down_proj", nn.Linear(4 * embed_dim, embed_dim))\n'
         '        self.feed_forward.add_module("dropout", nn.Dropout(dropout))'),
        ("ReLU by clamp", "F.relu(self.up_proj(x))", "self.up_proj(x).clamp(min=0)"),
    ],
    "check_gpt_class": [
        ("goes from block to block", "return self.lm_head(self.norm(self.blocks(self.dropout(x))))",
         "x = self.dropout(x)\n"
         "        for block in self.blocks: x = block(x)\n"
         "        return self.lm_head(self.norm(x))"),
        ("asks for positions by number", "self.position_embedding.weight[: idx.shape[1]]",
         "self.position_embedding(torch.arange(idx.shape[1], device=idx.device))"),
        ("GPT-2's first weights in lm_head", "std=1 / C", "std=0.02"),
        ("a ModuleList", PARTS,
         PARTS.replace("nn.Sequential(*(", "nn.ModuleList((").replace(
             "        return self.lm_head(self.norm(self.blocks(self.dropout(x))))",
             "        x = self.dropout(x)\n"
             "        for block in self.blocks: x = block(x)\n"
             "        return self.lm_head(self.norm(x))")),
    ],
    "check_value_class": [
        ("from call to call",
         "    def backward(self):\n" + BACKWARD,
         "    def backward(self, gradient=1.0):\n"
         "        self.grad += gradient\n"
         "        for value, derivative in self.made_of: value.backward(gradient * derivative)\n"),
        ("the oldest first", "max(waiting", "min(waiting"),
    ],
}
