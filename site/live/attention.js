// Notebooks 03 and 11 to be touched: what each head of the laptop model looks at in a sentence.
"use strict"
{
  const LABELLED = 0.045 // shares from here on stand in figures above their bars

  // A model that reads a text again and again; what is the same as before is not fed again.
  class Reader {
    constructor(model, chars) {
      Object.assign(this, {model, chars, ids: [], logits: []})
      this.unknown = Math.max(0, chars.indexOf("\ufffd"))
    }

    idOf(char) { return this.chars.includes(char) ? this.chars.indexOf(char) : this.unknown }

    read(text) {
      const ids = text.map(char => this.idOf(char))
      let same = 0
      while (same < ids.length && ids[same] === this.ids[same]) same++
      this.model.length = this.logits.length = same
      for (const id of ids.slice(same)) this.logits.push(this.model.feed(id))
      this.ids = ids
    }

    // (length, length) weights of a head, row after row.
    weights(block, head) {
      const {T, length, blocks} = this.model, map = blocks[block].attention[head]
      return Array.from({length}, (_, i) => map.subarray(i * T, i * T + length))
    }

    likeliest(position, count) {
      const probabilities = softmax(Float64Array.from(this.logits[position]))
      return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a])
        .slice(0, count).map(id => [this.chars[id], probabilities[id]])
    }
  }

  // A head's weights as a picture with a pixel for each pair.
  function paint(canvas, rows) {
    canvas.width = canvas.height = Math.max(1, rows.length)
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height)
    const ink = getComputedStyle(canvas).color.match(/[\d.]+/g).slice(0, 3).map(Number)
    rows.forEach((row, i) => row.forEach((weight, j) => {
      if (j <= i) image.data.set([...ink, 255 * Math.sqrt(weight)], 4 * (i * rows.length + j))
    }))
    context.putImageData(image, 0, 0)
  }

  // The maps of all heads, a row for each block. Gives a function that draws them all.
  function makeMaps(root, {num_blocks, num_heads}, choose) {
    const maps = []
    for (let block = 0; block < num_blocks; block++) {
      const line = element("div", {class: "heads", role: "group", "aria-label": `block ${block}`},
        element("span", {class: "quiet"}, `block ${block}`))
      for (let head = 0; head < num_heads; head++) {
        const canvas = element("canvas"), looking = element("i")
        const button = element("button", {type: "button"},
          element("span", {class: "map"}, canvas, looking), `head ${head}`)
        button.onclick = () => choose(block, head)
        line.append(button)
        maps.push({block, head, canvas, looking, button})
      }
      root.append(line)
    }
    return (reader, state) => {
      for (const {block, head, canvas, looking, button} of maps) {
        if (state.fresh) paint(canvas, reader.weights(block, head))
        button.setAttribute("aria-pressed", block === state.block && head === state.head)
        looking.style.top = `${100 * state.position / reader.ids.length}%`
        looking.style.height = `${100 / reader.ids.length}%`
        looking.hidden = state.position < 0
      }
    }
  }

  // The text as one box a character, above each a bar for the share of the weight that it gets.
  function makeLetters(root, look, choose) {
    const letters = element("div", {class: "letters", tabindex: "0", role: "application",
      "aria-label": "The characters: arrow keys choose the one that looks",
      "aria-describedby": "attention-says"})
    const under = event => [...letters.children].indexOf(event.target.closest(".letters > span"))
    letters.onpointerover = event => {
      if (event.pointerType === "mouse" && under(event) >= 0) look(under(event))
    }
    letters.onpointerleave = () => look(null)
    letters.onclick = event => { if (under(event) >= 0) choose(under(event)) }
    letters.onkeydown = event => {
      const by = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key]
      if (by === undefined || !letters.children.length) return
      event.preventDefault()
      const chosen = letters.querySelector(".chosen")
      const to = [...letters.children].indexOf(chosen) + by
      choose(Math.max(0, Math.min(letters.children.length - 1, to)))
    }
    root.append(letters)
    const made = () => letters.appendChild(element("span", {},
      element("small"), element("span", {class: "bar"}), element("b")))
    return (chars, position, weights) => {
      while (letters.children.length > chars.length) letters.lastChild.remove()
      chars.forEach((char, i) => {
        const letter = letters.children[i] ?? made(), share = i <= position ? weights[i] : 0
        const [number, bar, name] = letter.children
        name.textContent = visible(char)
        number.textContent = share >= LABELLED ? Math.round(100 * share) : ""
        bar.style.height = `${share * 2.5}rem`
        letter.style.setProperty("--share", `${100 * share}%`)
        letter.className = i === position ? "chosen" : i > position ? "future" : ""
      })
    }
  }

  live.attention = (root, {model, presets}) => {
    const reader = new Reader(loadModel(model), [...model.chars]), {T} = reader.model
    const state = {block: 0, head: 0, position: -1, chosen: -1, fresh: true}

    const choices = element("div", {class: "row"}, "Try:")
    const note = element("p", {class: "note", "aria-live": "polite"})
    const text = element("textarea", {rows: "2", maxlength: T, spellcheck: "false"})
    const unknown = element("p", {class: "quiet unknown"})
    const picture = element("div"), maps = element("div", {class: "maps"})
    const says = element("p", {class: "says", id: "attention-says", "aria-live": "polite"})
    root.append(choices, note,
      element("label", {}, `Your text, at most ${T} characters. The trained model of `
        + "notebook 07 reads it: two blocks of four heads, each of which does what 03 builds.", text), unknown,
      element("p", {}, "Point at a character, and click to hold it: the ", element("mark", {}, "framed"),
        " one looks back, and the bars show at what, in per cent. What comes later it cannot see."),
      picture, says, element("p", {class: "quiet"},
        "All heads at once: each row is a character that looks, the spots in it are what it "
        + "looks at. The framed character’s row is marked. Choose a head."), maps)
    const markPreset = makeChoices(choices, presets.map(preset => preset.name), tryPreset)
    const showLetters = makeLetters(picture, look, choose)
    const showMaps = makeMaps(maps, reader.model.config, chooseHead)

    const listed = pairs => pairs.map(([char, share]) => `${named(char)} ${percent(share, 0)}`).join(", ")

    function describe(weights) {
      const {block, head, position} = state, chars = reader.ids.map(id => reader.chars[id])
      const most = [...weights.keys()].slice(0, position + 1)
        .sort((a, b) => weights[b] - weights[a]).slice(0, 3).filter(i => weights[i] >= 0.01)
      return `In block ${block}, head ${head}, ${named(chars[position])} looks at `
        + `${listed(most.map(i => [chars[i], weights[i]]))}. `
        + `The model expects next: ${listed(reader.likeliest(position, 3))}.`
    }

    function draw() {
      const chars = reader.ids.map(id => reader.chars[id]), {block, head, position} = state
      const weights = reader.weights(block, head)[position] ?? []
      showLetters(chars, position, weights)
      showMaps(reader, state)
      says.textContent = chars.length ? describe(weights) : "Nothing to look at yet: type something."
      state.fresh = false
    }

    function look(position) {
      state.position = position ?? state.chosen
      draw()
    }

    function choose(position) {
      state.chosen = position
      look(position)
    }

    function forgetPreset() {
      note.textContent = ""
      markPreset(-1)
    }

    function chooseHead(block, head) {
      forgetPreset()
      Object.assign(state, {block, head})
      draw()
    }

    function read() {
      const chars = [...text.value].slice(0, T)
      const strange = new Set(chars.filter(char => !reader.chars.includes(char)))
      unknown.textContent = strange.size
        ? `Not in the model’s vocabulary, and read as �: ${[...strange].join(" ")}` : ""
      reader.read(chars)
      state.fresh = true
      choose(chars.length - 1)
    }

    function tryPreset(i) {
      const preset = presets[i]
      text.value = preset.text
      Object.assign(state, {block: preset.block, head: preset.head})
      read()
      choose(preset.position)
      note.textContent = preset.note
      markPreset(i)
    }

    text.oninput = onceAFrame(() => { forgetPreset(); read() })
    onNewColours(() => { state.fresh = true; draw() })
    tryPreset(0)
  }
}
