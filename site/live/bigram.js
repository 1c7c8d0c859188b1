// Notebook 02 to be touched: a bigram model is a table, and its text a walk through that table.
"use strict"
{
  const STEPS = 40 // characters that a click on Write adds
  const PACE = 150 // milliseconds from one to the next, so that the walk can be followed
  const BARS = 10 // characters that have one
  const LABEL = 12 // pixels that a label on an axis needs
  const SVG = "http://www.w3.org/2000/svg"

  function shape(tag, attributes = {}, text = "") {
    const made = document.createElementNS(SVG, tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
    made.textContent = text
    return made
  }

  const sum = numbers => numbers.reduce((total, number) => total + number, 0)

  // Counts as probabilities, as if each row had seen a few characters more (notebook 02).
  function smoothed({counts, frequencies, weight}) {
    const all = sum(frequencies)
    return counts.map(row => {
      const total = sum(row) + weight
      return row.map((count, next) => (count + weight * frequencies[next] / all) / total)
    })
  }

  function drawn(probabilities, random) {
    let rest = random
    const next = probabilities.findIndex(probability => (rest -= probability) < 0)
    return next >= 0 ? next : probabilities.length - 1
  }

  // How strongly a probability is coloured, 0 to 1: 0.01 % hardly, each tenfold one more.
  const strength = probability => Math.max(0.15, 1 + Math.log10(probability) / 4) ** 1.4

  // With three digits, however small.
  const precise = share => `${(100 * share).toLocaleString("en", {maximumSignificantDigits: 3})}\u00a0%`

  // The table as a picture. Gives a function that draws what changes: {row, hover, walk, frame}.
  function makeTable(root, {chars, counts}, probabilities, {look, choose}) {
    const V = chars.length, canvas = element("canvas", {"aria-hidden": "true"})
    const labels = shape("g"), marks = shape("g"), picture = shape("svg", {"aria-hidden": "true"})
    picture.append(labels, marks)
    const figure = element("div", {class: "table", tabindex: "0", role: "application",
      "aria-label": "Table of what follows what: arrow keys move, Enter chooses a row",
      "aria-describedby": "bigram-says"}, canvas, picture)
    root.append(figure)
    let cell = 1, margin = 0, levels = 1, state = null

    function drawCells() {
      canvas.width = canvas.height = V
      const context = canvas.getContext("2d"), image = context.createImageData(V, V)
      const ink = getComputedStyle(canvas).color.match(/[\d.]+/g).slice(0, 3).map(Number)
      counts.forEach((row, i) => row.forEach((count, j) => {
        const alpha = count && 255 * strength(probabilities[i][j])
        image.data.set([...ink, alpha], 4 * (i * V + j))
      }))
      context.putImageData(image, 0, 0)
    }

    // A label stands in one of several lines, so that neighbours do not touch.
    function label(i, onTop) {
      const level = i % levels, along = (i + 0.5) * cell + margin
      const across = margin - 3 - LABEL * (level + 0.5)
      const name = shape("text", {class: onTop ? "top" : "left",
        x: onTop ? along : across, y: onTop ? across : along}, visible(chars[i]))
      const line = shape("line", onTop
        ? {x1: along, x2: along, y1: across + LABEL / 2, y2: margin}
        : {y1: along, y2: along, x1: across + LABEL / 2, x2: margin})
      return [line, name]
    }

    const box = (row, column, attributes, rows = 1, columns = 1) => shape("rect", {
      x: margin + column * cell, y: margin + row * cell,
      width: columns * cell, height: rows * cell, ...attributes})

    // Where the walk has been, and the last steps: along a row to the next character, then to the
    // row of that character.
    function walked(walk) {
      const pairs = walk.slice(1).map((next, i) => [walk[i], next])
      const visited = pairs.map(([from, to], i) => box(from, to, {class: "visited",
        opacity: Math.max(0.35, 1 - 0.1 * (pairs.length - 1 - i))}))
      const middle = i => margin + (i + 0.5) * cell
      const corners = pairs.slice(-3).flatMap(([from, to]) => [[to, from], [to, to]])
      const points = corners.map(([x, y]) => `${middle(x)},${middle(y)}`).join(" ")
      return [...visited, shape("polyline", {class: "path", points})]
    }

    const framed = ([top, bottom, left, right]) =>
      box(top - 0.5, left - 0.5, {class: "frame"}, bottom - top + 2, right - left + 2)

    const crossed = ([row, column]) => [box(row, 0, {class: "cross"}, 1, V),
      box(0, column, {class: "cross"}, V, 1), box(row, column, {class: "cell"})]

    function drawMarks() {
      if (!state) return
      const {row, hover, walk, frame} = state
      marks.replaceChildren(box(row, 0, {class: "current"}, 1, V), ...frame ? [framed(frame)] : [],
        ...walked(walk), ...hover ? crossed(hover) : [])
      const [left, top] = hover ?? [row, -1]
      for (const [kind, chosen] of [[".left", left], [".top", top]]) {
        labels.querySelectorAll(kind).forEach((name, i) => name.classList.toggle("on", i === chosen))
      }
    }

    function resize() {
      const width = figure.clientWidth
      if (!width) return // not shown, as in a folded part of the page
      for (levels = 1; levels < 6; levels++) {
        margin = LABEL * levels + 5
        cell = (width - margin - 1) / V
        if (cell * levels > LABEL) break
      }
      picture.setAttribute("viewBox", `0 0 ${width} ${width}`)
      Object.assign(canvas.style, {left: `${margin}px`, top: `${margin}px`,
        width: `${V * cell}px`, height: `${V * cell}px`})
      labels.replaceChildren(box(0, 0, {class: "border"}, V, V),
        ...chars.flatMap((_, i) => [...label(i, false), ...label(i, true)]))
      drawMarks()
    }

    // The cell under the mouse or finger; a row's label stands for its first cell.
    function under(event) {
      const {left, top} = figure.getBoundingClientRect()
      const [row, column] = [event.clientY - top, event.clientX - left]
        .map(x => Math.min(V - 1, Math.floor((x - margin) / cell)))
      return row < 0 ? null : [row, Math.max(0, column)]
    }

    figure.onpointermove = event => look(under(event))
    figure.onpointerleave = event => { if (event.pointerType === "mouse") look(null) }
    figure.onblur = () => look(null)
    figure.onclick = event => {
      look(under(event))
      if (state.hover) choose(state.hover[0])
    }
    figure.onkeydown = event => {
      const by = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key]
      const [row, column] = state.hover ?? [state.row, 0]
      if (by) look([(row + by[0] + V) % V, (column + by[1] + V) % V])
      else if (event.key === "Enter" || event.key === " ") choose(row)
      else return
      event.preventDefault()
    }
    onNewColours(drawCells)
    drawCells()
    new ResizeObserver(resize).observe(figure)
    return fresh => {
      state = fresh
      drawMarks()
    }
  }

  // The likeliest characters as bars on an axis from 0 to 100 %, each a button that chooses its id.
  // Gives a function that draws a row of the table; the buttons stay, and keep the focus.
  function makeBars(root, chars, choose) {
    const axis = element("div", {class: "axis", "aria-hidden": "true"},
      ...["0", "25", "50", "75", "100 %"].map(text => element("span", {}, text)))
    const rows = Array.from({length: BARS}, () => {
      const name = element("b"), bar = element("span", {class: "bar"}), number = element("span")
      const button = element("button", {type: "button"}, name,
        element("span", {class: "track"}, bar), number)
      return {name, bar, number, button}
    })
    const others = element("div", {class: "others"})
    root.append(axis, element("ol", {class: "bars"},
      ...rows.map(({button}) => element("li", {}, button))), others)
    return probabilities => {
      const ids = [...chars.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, BARS)
      rows.forEach(({name, bar, number, button}, rank) => {
        const id = ids[rank], share = probabilities[id]
        name.textContent = visible(chars[id])
        bar.style.width = `${100 * share}%` // of the whole axis
        number.textContent = percent(share)
        button.setAttribute("aria-label", `append ${named(chars[id])}, ${percent(share)}`)
        button.onclick = () => choose(id)
      })
      const rest = 1 - sum(ids.map(id => probabilities[id]))
      others.textContent = `${chars.length - BARS} other characters: ${percent(rest)}`
    }
  }

  // What the colours mean.
  function makeKey() {
    const key = element("div", {class: "key quiet"},
      element("span", {}, element("i", {class: "never"}), "never seen"))
    for (const probability of [1e-4, 1e-3, 1e-2, 0.1, 1]) {
      const patch = element("i")
      patch.style.opacity = strength(probability)
      key.append(element("span", {}, patch, `${+(100 * probability).toFixed(2)} %`))
    }
    return key
  }

  live.bigram = (root, data) => {
    const chars = [...data.chars], table = smoothed(data)
    let text = [], hover = null, frame = null, timer = null

    const says = element("p", {class: "says", id: "bigram-says", "aria-live": "polite"})
    const start = element("select", {},
      ...chars.map((char, i) => element("option", {value: i}, visible(char))))
    const presets = element("div", {class: "row"}, "Try:"), picture = element("div")
    const bars = element("div"), paper = element("pre", {class: "paper", tabindex: "0", role: "region",
      "aria-label": "the text so far"})
    const loss = element("p", {class: "quiet loss"})
    const write = element("button", {type: "button", class: "go write"})
    const seed = element("input", {type: "number", value: "0", min: "0", class: "seed"})
    const words = element("p", {}, "This table is the whole model: what came after what in the "
      + "training set. To write, draw a character from the present one’s row, go to that "
      + "character’s row, and repeat.")
    const axes = element("p", {class: "quiet"},
      "Rows: the present character. Columns: the next one. Choose a row to begin there.")
    root.append(words, presets, element("div", {class: "sides"},
      element("div", {class: "wide"}, axes, picture, makeKey()),
      element("div", {}, says,
        element("div", {class: "row"}, write, element("label", {}, "seed", seed)), paper, loss,
        element("p", {}, element("label", {}, "After ", start, " comes …")), bars)))

    const showTable = makeTable(picture, {chars, counts: data.counts}, table, {look, choose: begin})
    const showBars = makeBars(bars, chars, id => { stop(); append(id) })
    const markPreset = makeChoices(presets, data.presets.map(preset => preset.name), tryPreset)

    function describe([row, column]) {
      const count = data.counts[row][column], all = sum(data.counts[row])
      return `After ${named(chars[row])} came ${named(chars[column])} ${count.toLocaleString("en")} `
        + `times of ${all.toLocaleString("en")}. Smoothed probability: ${precise(table[row][column])}.`
    }

    function drawText() {
      const last = text.at(-1)
      paper.replaceChildren(text.slice(0, -1).map(id => chars[id]).join(""),
        element("mark", {}, chars[last] === "\n" ? "⏎" : chars[last]))
      paper.scrollTop = paper.scrollHeight
      const losses = text.slice(1).map((next, i) => -Math.log(table[text[i]][next]))
      loss.textContent = losses.length
        ? "Mean negative log-likelihood of what is written: "
          + `${(sum(losses) / losses.length).toFixed(2)} nats per character`
        : "Nothing is written yet: press Write, or choose a bar."
    }

    const drawTable = () =>
      showTable({row: text.at(-1), hover, frame, walk: text.slice(-STEPS - 1)})

    function draw() {
      const row = text.at(-1)
      drawTable()
      showBars(table[row])
      start.value = row
      write.textContent = timer ? "Stop" : `Write ${STEPS} characters`
      drawText()
    }

    function say(words) { if (says.textContent !== words) says.textContent = words }

    function look(cell) {
      if (String(cell) === String(hover)) return
      hover = cell
      if (cell) say(describe(cell))
      drawTable()
    }

    function begin(id) {
      stop()
      text = [id]
      frame = null
      markPreset(-1)
      draw()
    }

    function append(id) {
      text.push(id)
      if (!hover && !timer) say(describe(text.slice(-2))) // too fast to be read in a walk
      draw()
    }

    // The n-th character of a text is drawn with the n-th random number of its seed.
    function next() {
      const random = seeded(Math.round(+seed.value) || 0)
      for (let i = 1; i < text.length; i++) random()
      return drawn(table[text.at(-1)], random())
    }

    function stop() {
      clearTimeout(timer)
      timer = null
    }

    function walk(left) {
      timer = left > 1 ? setTimeout(() => walk(left - 1), PACE) : null
      append(next())
    }

    write.onclick = () => {
      if (timer) { stop(); draw(); return }
      hover = frame = null
      markPreset(-1)
      say("The line runs along a row to the character that was drawn, and on to that one’s row.")
      if (!reducedMotion()) { walk(STEPS); return }
      for (let i = 0; i < STEPS; i++) text.push(next())
      draw()
    }
    start.onchange = () => begin(+start.value)

    function tryPreset(i) {
      const {start, note} = data.presets[i]
      begin(chars.indexOf(start))
      frame = data.presets[i].frame
      markPreset(i)
      say(note)
      draw()
    }

    begin(chars.indexOf("t"))
    say("Point at a cell to read it, choose a row to begin there, or try one of the three starts.")
  }
}
