// What stands between the model and the page, in a worker, so that the page never freezes: it keeps
// the text, feeds it to the model, and answers what the page asks for.
"use strict"

// A generator of random numbers from a seed (mulberry32): the same seed, the same text.
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

class Writer {
  constructor(model, chars) {
    Object.assign(this, {model, chars: [...chars], unknown: [...chars].indexOf("\ufffd")})
    Object.assign(this, {ids: [], nll: [], seen: [], logits: null})
  }

  idOf(char) { // -1 where there is none
    const id = this.chars.indexOf(char)
    return id < 0 ? this.unknown : id
  }

  // Another text; what it has in common with the present one is not fed again.
  begin(text) {
    const ids = [...text].map(char => this.idOf(char)).filter(id => id >= 0)
    const start = this.ids.length - this.seen.length // the first character that is still seen
    let same = 0
    while (same < ids.length && ids[same] === this.ids[same]) same++
    let keep = same - 1 // the last of the same is fed again, for the logits that follow it
    // a shorter text would still be in the window before this one, which begins with a quarter
    const least = start ? Math.max(1, Math.floor(this.model.T / 4)) : 1
    if (keep - start < least) { keep = 0; this.logits = null }
    const known = this.nll.slice(0, keep + (keep > 0))
    this.model.length = Math.max(0, keep - start) * (keep > 0)
    this.seen = this.seen.slice(0, this.model.length)
    this.ids = this.ids.slice(0, keep)
    this.nll = this.nll.slice(0, keep)
    for (const id of ids.slice(keep)) this.append(id)
    known.forEach((nll, i) => { this.nll[i] = nll })
  }

  // One more character at the end of the text; its negative log-likelihood is kept.
  append(id) {
    const expected = this.logits && softmax(Float64Array.from(this.logits))
    this.nll.push(expected ? -Math.log(expected[id]) : null)
    this.ids.push(id)
    const [seen, fresh] = visibleWindow(this.seen, [id], this.model.T)
    if (!seen.length) this.model.clear()
    for (const next of fresh) this.logits = this.model.feed(next)
    this.seen = [...seen, ...fresh]
  }

  get text() { return this.ids.map(id => this.chars[id]).join("") }

  draw(settings, random) {
    const probabilities = nextProbabilities(this.logits, settings)
    let rest = random()
    const drawn = probabilities.findIndex(probability => (rest -= probability) < 0)
    return drawn >= 0 ? drawn : probabilities.indexOf(Math.max(...probabilities))
  }

  // Everything that the page shows: the text, what comes next, and one position looked at.
  state(settings, look) {
    const start = this.ids.length - this.seen.length // the first character that the model still sees
    const position = Math.min(Math.max(look ?? this.ids.length - 1, start), this.ids.length - 1)
    const at = position - start, {model} = this
    if (position < 0) return {text: "", nll: [], start: 0, position: -1}
    const rows = model.blocks.map(block => block.attention.map(
      map => map.slice(at * model.T, at * model.T + at + 1)))
    return {text: this.text, nll: this.nll, start, position, rows, lens: model.lens(at),
      probabilities: nextProbabilities(this.logits, settings)}
  }

  maps(block) { // all heads of a block: (length, length) each
    const {T, length} = this.model
    return this.model.blocks[block].attention.map(map => {
      const square = new Float32Array(length * length)
      for (let i = 0; i < length; i++) square.set(map.subarray(i * T, i * T + length), i * length)
      return square
    })
  }
}
