// Notebook 06 with sliders: how large a GPT is, part by part, and what its training takes.
"use strict"

// Every parameter of a GPT, derived from its configuration: parameter_ledger of notebook 06.
function parameterLedger(config) {
  const {vocab_size: V, context_length: T, embed_dim: C, num_blocks: blocks} = config
  return {
    "token embedding": config.tied_head ? 0 : V * C,
    "position embedding": T * C,
    "queries, keys, values": blocks * 3 * C * C,
    "output projections": config.output_projection ? blocks * (C * C + C) : 0,
    "feed-forward": blocks * (C * 4 * C + 4 * C + 4 * C * C + C),
    "LayerNorms": (2 * blocks + 1) * 2 * C,
    "lm_head": C * V + V,
  }
}

const sumOf = parts => Object.values(parts).reduce((sum, size) => sum + size, 0)

// Bytes that training needs, in float32 without dropout: training_memory of notebook 06.
function trainingMemory(config, batchSize) {
  const {vocab_size: V, context_length: T, embed_dim: C, num_heads: H, num_blocks: blocks} = config
  const weights = 4 * sumOf(parameterLedger(config))
  const block = 12 * C + 2 * 2 + H, lastNorm = 2 * C + 2, loss = V
  const perPosition = blocks * block + lastNorm + loss
  return {"weights": weights, "gradients": weights, "AdamW's moments": 2 * weights,
    "activations": 4 * perPosition * batchSize * T}
}

// FLOP of training a position, forward and backward: training_flops of notebook 06.
function trainingFlops(config) {
  const {vocab_size: V, context_length: T, embed_dim: C, num_blocks: blocks} = config
  const matrices = blocks * (11 + +config.output_projection) * C * C + C * V
  return 6 * matrices + 12 * blocks * T * C
}

{
  const doublings = (from, to) => to < from ? [] : [from, ...doublings(2 * from, to)]
  const upTo = (last, step = 1) => Array.from({length: last / step}, (_, i) => (i + 1) * step)
  const SLIDERS = { // the values that each can take
    head_dim: {label: "head dimension", values: upTo(128, 8)},
    num_heads: {label: "heads", values: upTo(16)},
    num_blocks: {label: "blocks", values: upTo(24)},
    context_length: {label: "context length", values: doublings(16, 2048)},
    vocab_size: {label: "vocabulary size",
      values: [27, 77, 128, 256, 512, 1000, 2000, 5000, 10000, 20000, 50257]},
    batch_size: {label: "sequences in a batch", values: doublings(1, 512)},
  }
  const SWITCHES = {output_projection: "attention has an output projection",
    tied_head: "lm_head shares the token embedding's weights"}
  const IN_BLOCKS = ["feed-forward", "queries, keys, values", "output projections", "LayerNorms"]
  const OUTSIDE = ["token embedding", "lm_head", "position embedding"]
  const FRAMES = [3e5, 1.5e7, 1.5e8, 2e9] // parameters that the whole square may stand for

  const whole = number => number.toLocaleString("en")

  // Three digits and the unit that suits: 3.84 MB.
  function inUnits(value, unit) {
    const prefixes = ["", "k", "M", "G", "T", "P", "E"]
    let rounded = Number(value.toPrecision(3)), power = 0
    while (rounded >= 1000) { rounded /= 1000; power++ }
    return `${Number(rounded.toPrecision(3))} ${prefixes[power]}${unit}`
  }

  const millions = number => number < 1e6 ? whole(number)
    : number < 1e9 ? `${number / 1e6} million` : `${number / 1e9} billion`

  const shareOf = (size, total) => size && size < 0.001 * total ? "< 0.1 %" : percent(size / total)

  // Black or white, whichever is read better on a colour.
  function inkOn(colour) {
    const [red, green, blue] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16) / 255)
    const bright = 0.2126 * red ** 2.2 + 0.7152 * green ** 2.2 + 0.0722 * blue ** 2.2
    return bright > 0.18 ? "#111" : "#fff"
  }

  const embedDim = state => state.head_dim * state.num_heads
  const configOf = state => ({...state, embed_dim: embedDim(state)})

  // What the sliders stand at for a known model.
  const stateOf = ({config, batch_size}) => ({...config, batch_size,
    head_dim: config.embed_dim / config.num_heads})

  // What is different in a model, in words: "blocks 2 → 8".
  function differences(before, after) {
    const facts = state => ({"embedding dimension": embedDim(state), ...Object.fromEntries(
      Object.entries(SLIDERS).map(([name, {label}]) => [label, state[name]]))})
    const [old, now] = [facts(before), facts(after)]
    const changed = Object.keys(now).filter(name => old[name] !== now[name])
      .map(name => `${name} ${whole(old[name])} → ${whole(now[name])}`)
    for (const [name, label] of Object.entries(SWITCHES)) {
      if (before[name] !== after[name]) changed.push(`${after[name] ? "" : "no longer: "}${label}`)
    }
    return changed
  }

  function times(factor) {
    if (factor === 1) return "as many parameters"
    return factor > 1 ? `${Number(factor.toPrecision(3))} times as many parameters`
      : `${Number((100 * factor).toPrecision(3))} % of the parameters`
  }

  // One slider with its name and value.
  function sliderFor(name, {label, values}, changed) {
    const input = element("input", {type: "range", min: 0, max: values.length - 1, step: 1})
    const shown = element("output")
    const set = value => {
      input.value = values.indexOf(value)
      shown.textContent = whole(value)
      input.setAttribute("aria-valuetext", whole(value))
    }
    input.dataset.name = name
    input.addEventListener("input", () => {
      const value = values[input.value]
      set(value)
      changed(value)
    })
    const line = element("label", {class: "slider"}, element("span", {}, label), shown, input)
    return {set, line}
  }

  function switchFor(name, label, changed) {
    const input = element("input", {type: "checkbox"})
    input.dataset.name = name
    input.addEventListener("change", () => changed(input.checked))
    const line = element("label", {class: "switch"}, input, element("span", {}, label))
    return {line, set: value => { input.checked = value }}
  }

  // A table of parts: colour, name, size and share; the axis of the bars is as wide as the names.
  function tableOf(parts, colours, show) {
    const total = sumOf(parts)
    return Object.entries(parts).map(([name, size]) => {
      const bar = element("span", {class: "bar"}), key = element("span", {class: "key"})
      bar.style.width = `${100 * size / total}%`
      bar.style.background = key.style.background = colours?.[name] ?? ""
      const row = element("tr", {}, element("th", {scope: "row"}, colours ? key : "", name, bar),
        element("td", {}, show(size)), element("td", {}, shareOf(size, total)))
      row.dataset.part = name
      row.classList.toggle("none", size === 0)
      return row
    })
  }

  function areaOf(name, size, colour) {
    const label = element("span", {}, name), area = element("div", {class: "part"}, label)
    area.dataset.part = name
    area.title = `${name}: ${whole(size)}`
    area.style.flexGrow = size
    area.style.background = label.style.background = colour
    area.style.color = inkOn(colour)
    return area
  }

  // The model as a square whose area is its size: inside of the blocks left, outside right.
  function drawSquare(frame, ledger, size, colours, presets) {
    const side = Math.sqrt(sumOf(ledger) / size), square = element("div", {class: "square"})
    square.style.width = square.style.height = `${100 * side}%`
    for (const group of [IN_BLOCKS, OUTSIDE]) {
      const parts = group.filter(name => ledger[name])
      const column = element("div", {class: "column"},
        ...parts.map(name => areaOf(name, ledger[name], colours[name])))
      column.style.flexGrow = parts.reduce((sum, name) => sum + ledger[name], 0)
      square.append(column)
    }
    frame.replaceChildren(square, ...presets.map(preset => outlineOf(preset, size)).filter(Boolean))
    for (const area of square.querySelectorAll(".part")) { // a label that does not fit is left out
      const label = area.firstChild
      label.hidden = label.offsetWidth > area.clientWidth || label.offsetHeight > area.clientHeight
    }
  }

  // A known model to compare with: a dashed square and its name, where it is not too small to see.
  function outlineOf({name, config}, size) {
    const side = Math.sqrt(sumOf(parameterLedger(config)) / size)
    if (side > 1 || side < 0.08) return null
    const outline = element("div", {class: "outline"}, element("span", {}, name))
    outline.style.width = outline.style.height = `${100 * side}%`
    return outline
  }

  live.parameters = (root, {presets, colours}) => {
    const state = {}
    let chosen = null, compared = null // the last known model; what the present one is held against
    const total = element("output", {class: "total"}), width = element("p", {class: "quiet"})
    const frame = element("div", {class: "frame", "aria-hidden": "true"})
    const scale = element("p", {class: "quiet scale"})
    const changes = element("p", {class: "changes", role: "status"})
    const parts = element("tbody"), memory = element("tbody")
    const memoryTotal = element("b"), flops = element("b"), step = element("p", {class: "quiet"})

    const draw = onceAFrame(() => {
      const config = configOf(state), ledger = parameterLedger(config), count = sumOf(ledger)
      total.textContent = `${whole(count)} parameters`
      width.textContent = `embedding dimension ${config.num_heads} × ${state.head_dim} = `
        + `${config.embed_dim}`
      const size = FRAMES.find(frame => frame >= count)
      drawSquare(frame, ledger, size, colours, presets)
      scale.textContent = `Area is size: the whole frame stands for ${millions(size)} parameters.`
      parts.replaceChildren(...tableOf(ledger, colours, whole))
      const bytes = trainingMemory(config, state.batch_size)
      memory.replaceChildren(...tableOf(bytes, null, size => inUnits(size, "B")))
      memoryTotal.textContent = inUnits(sumOf(bytes), "B")
      const positions = state.batch_size * state.context_length
      flops.textContent = inUnits(trainingFlops(config) * positions, "FLOP")
      step.textContent = `A step reads ${whole(state.batch_size)} × `
        + `${whole(state.context_length)} = ${whole(positions)} tokens, `
        + `${inUnits(trainingFlops(config), "FLOP")} for each.`
      describe(count)
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", isNow(presets[i])))
    })

    const isNow = preset => !differences(stateOf(preset), state).length

    function describe(count) {
      const changed = differences(compared.state, state)
      const factor = count / sumOf(parameterLedger(configOf(compared.state)))
      changes.textContent = !changed.length ? `This is ${compared.says}.`
        : `Against ${compared.says}: ${changed.join(", ")}. ${times(factor)}.`
    }

    function change(name, value) {
      state[name] = value
      compared = chosen
      note.textContent = ""
      draw()
    }

    const controls = {}
    for (const [name, slider] of Object.entries(SLIDERS)) {
      controls[name] = sliderFor(name, slider, value => change(name, value))
    }
    for (const [name, label] of Object.entries(SWITCHES)) {
      controls[name] = switchFor(name, label, value => change(name, value))
    }
    const buttons = presets.map(preset => {
      const button = element("button", {type: "button"}, preset.name)
      button.addEventListener("click", () => choose(preset))
      return button
    })

    function choose(preset) {
      const before = chosen && {says: "what you had", state: {...state}}
      Object.assign(state, stateOf(preset))
      for (const name of Object.keys(controls)) controls[name].set(state[name])
      note.textContent = preset.note
      chosen = {says: preset.says, state: {...state}}
      compared = before ?? chosen
      draw()
    }
    const note = element("p", {class: "quiet"})
    const table = (caption, body) => element("table", {class: "numbers"},
      element("caption", {}, ...caption), body)
    root.append(
      element("div", {class: "row", role: "group", "aria-label": "known models"}, ...buttons),
      element("div", {class: "sides"},
        element("div", {}, ...Object.values(controls).map(control => control.line), changes, note),
        element("div", {class: "picture"}, total, width, frame, scale),
        table(["Where the parameters are"], parts),
        element("div", {}, table(["Memory of training: ", memoryTotal], memory),
          element("p", {}, "Arithmetic of training: ", flops, " a step"), step)))
    choose(presets[0])
  }
}
