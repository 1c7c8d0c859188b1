// The GPT of the course in plain JavaScript: what the notebooks build in PyTorch, one position at a
// time. A vector is a Float32Array; a matrix is one too, row after row, as PyTorch keeps it.
"use strict"

// y = W x + b, PyTorch's nn.Linear (notebook 03).
function linear(W, b, x, y) {
  const columns = x.length, even = columns - columns % 4
  for (let i = 0, at = 0; i < y.length; i++) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, j = 0 // four sums at once: the processor need not wait
    for (; j < even; j += 4, at += 4) {
      s0 += W[at] * x[j]
      s1 += W[at + 1] * x[j + 1]
      s2 += W[at + 2] * x[j + 2]
      s3 += W[at + 3] * x[j + 3]
    }
    for (; j < columns; j++, at++) s0 += W[at] * x[j]
    y[i] = s0 + s1 + s2 + s3 + (b ? b[i] : 0)
  }
  return y
}

// LayerNorm (notebook 05): mean 0 and variance 1, then a learned scale and bias.
function layerNorm(weight, bias, x, y) {
  let mean = 0, variance = 0
  for (const value of x) mean += value / x.length
  for (const value of x) variance += (value - mean) ** 2 / x.length
  const scale = 1 / Math.sqrt(variance + 1e-5)
  for (let c = 0; c < x.length; c++) y[c] = (x[c] - mean) * scale * weight[c] + bias[c]
  return y
}

// Scores become weights that sum to one (notebook 03), in place.
function softmax(scores) {
  let highest = -Infinity, sum = 0
  for (const score of scores) highest = Math.max(highest, score)
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - highest)
  for (let i = 0; i < scores.length; i++) scores[i] /= sum
  return scores
}

// The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26), for GELU.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x))
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
    + t * (-1.453152027 + t * 1.061405429))))
  return Math.sign(x) * (1 - series * Math.exp(-x * x))
}

const ACTIVATIONS = {
  relu: x => Math.max(0, x),
  gelu: x => x * 0.5 * (1 + erf(x / Math.SQRT2)),
}

// The decoder (notebook 06), fed one id at a time; keys and values are kept (notebook 08).
class GPT {
  constructor(config, weights) {
    const {context_length: T, embed_dim: C, num_heads: H, num_blocks, vocab_size: V} = config
    Object.assign(this, {config, weights, T, C, H, D: C / H, V, length: 0})
    const room = () => new Float32Array(T * C)
    this.blocks = Array.from({length: num_blocks}, (_, b) => ({
      name: `blocks.${b}.`, keys: room(), values: room(),
      attention: Array.from({length: H}, () => new Float32Array(T * T)), // (T, T), row: who looks
    }))
    this.streams = Array.from({length: num_blocks + 1}, room) // the last one after the last block
    const [x, normed, added, heads] = Array.from({length: 4}, () => new Float32Array(C))
    Object.assign(this, {x, normed, added, heads}) // made once: nothing is allocated in the loop
    this.qkv = new Float32Array(3 * C)
    this.wide = new Float32Array(4 * C)
    this.activation = ACTIVATIONS[config.activation]
  }

  layer(name, x, y) {
    return linear(this.weights[name + ".weight"], this.weights[name + ".bias"], x, y)
  }

  norm(name, x) {
    return layerNorm(this.weights[name + ".weight"], this.weights[name + ".bias"], x, this.normed)
  }

  add(y) { for (let c = 0; c < this.C; c++) this.x[c] += y[c] } // to the residual stream

  clear() { this.length = 0 }

  // One more id; gives the logits of the id that follows it.
  feed(id) {
    const {C, T, x} = this, position = this.length
    if (position === T) throw new Error(`the window of ${T} characters is full`)
    const token = this.weights["token_embedding.weight"]
    const place = this.weights["position_embedding.weight"]
    for (let c = 0; c < C; c++) x[c] = token[id * C + c] + place[position * C + c]
    this.blocks.forEach((block, b) => {
      this.streams[b].set(x, position * C)
      this.add(this.attend(block, position))
      const wide = this.layer(block.name + "feed_forward.up_proj",
        this.norm(block.name + "norm2", x), this.wide)
      for (let i = 0; i < wide.length; i++) wide[i] = this.activation(wide[i])
      this.add(this.layer(block.name + "feed_forward.down_proj", wide, this.added))
    })
    this.streams[this.blocks.length].set(x, position * C)
    this.length = position + 1
    return this.logits(x)
  }

  // Causal attention of the newest position (notebooks 03 and 04): the future is not there yet.
  attend(block, position) {
    const {C, D, H, T, heads, qkv} = this
    this.layer(block.name + "attention.qkv", this.norm(block.name + "norm1", this.x), qkv)
    block.keys.set(qkv.subarray(C, 2 * C), position * C)
    block.values.set(qkv.subarray(2 * C), position * C)
    heads.fill(0)
    for (let h = 0; h < H; h++) {
      const row = block.attention[h].subarray(position * T, position * T + position + 1)
      for (let s = 0; s <= position; s++) {
        let score = 0
        for (let d = h * D; d < (h + 1) * D; d++) score += qkv[d] * block.keys[s * C + d]
        row[s] = score / Math.sqrt(D)
      }
      softmax(row)
      for (let s = 0; s <= position; s++) {
        for (let d = h * D; d < (h + 1) * D; d++) heads[d] += row[s] * block.values[s * C + d]
      }
    }
    if (!this.config.output_projection) return heads
    return this.layer(block.name + "attention.out_proj", heads, this.added)
  }

  logits(x) { return this.layer("lm_head", this.norm("norm", x), new Float32Array(this.V)) }

  // The logit lens (notebook 11): what the model would say at a position after each block.
  lens(position) {
    const at = position * this.C
    return this.streams.map(stream => softmax(this.logits(stream.subarray(at, at + this.C))))
  }
}

// The probabilities from which the next character is drawn (notebook 08).
function nextProbabilities(logits, {temperature, topK, topP}) {
  const likeliest = logits.indexOf(Math.max(...logits))
  if (temperature === 0) return logits.map((_, i) => +(i === likeliest))
  const probabilities = softmax(Float64Array.from(logits, logit => logit / temperature))
  const likelier = (a, b) => probabilities[b] - probabilities[a] || a - b
  const ranked = [...probabilities.keys()].sort(likelier)
  let before = 0, kept = 0
  ranked.forEach((id, rank) => {
    const keep = rank === 0 || (rank < topK && (topP >= 1 || before < topP))
    before += probabilities[id]
    if (keep) kept += probabilities[id]
    else probabilities[id] = 0
  })
  return probabilities.map(probability => probability / kept)
}

// When the window is full, all but its last quarter is forgotten and that fed again (notebook 08).
function visibleWindow(seen, fresh, T) {
  if (seen.length + fresh.length <= T) return [seen, fresh]
  if (!seen.length) return [[], fresh.slice(-T)]
  return [[], [...seen, ...fresh].slice(-Math.max(1, Math.floor(T / 4)))]
}

// Weights from one run of bytes: matrices as 8-bit numbers with a scale for each row (notebook 13).
function unpack(tensors, bytes) {
  const weights = {}
  for (const {name, rows, columns, scales, at} of tensors) {
    const size = rows * columns
    if (scales === null) { weights[name] = new Float32Array(bytes, at, size); continue }
    const numbers = new Int8Array(bytes, at, size), scale = new Float32Array(bytes, scales, rows)
    const matrix = weights[name] = new Float32Array(size)
    for (let i = 0; i < size; i++) matrix[i] = numbers[i] * scale[Math.floor(i / columns)]
  }
  return weights
}

