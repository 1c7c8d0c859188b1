// Notebook 08 with the published model: what temperature, top-k, top-p and a seed do to a text.
"use strict"
{
  const SHOWN = 12, LENGTH = 200, BUDGET = 8 // characters in the chart, in a text; ms of a frame
  const TEMPERATURES = [0.2, 0.8, 1.5]

  const percentOf = share => share > 0 && share < 0.0005 ? "< 0.1 %" : percent(share)

  // Everything that a reader can choose, as named inputs with their labels.
  function fieldsFor(vocabSize, begins) {
    const slider = (name, label, min, max, step, value) => {
      const shown = element("output", {}, value)
      const input = element("input", {type: "range", min, max, step, value})
      input.dataset.name = name
      input.addEventListener("input", () => { shown.textContent = input.value })
      return [input, element("label", {class: "slider"}, element("span", {}, label), shown, input)]
    }
    const prompt = element("input", {type: "text", value: begins, spellcheck: "false", maxlength: "500",
      autocapitalize: "off"})
    const seed = element("input", {type: "number", min: 0, step: 1, value: 0})
    prompt.dataset.name = "prompt"
    seed.dataset.name = "seed"
    return {
      prompt: [prompt, element("label", {class: "prompt"}, "prompt", prompt)],
      temperature: slider("temperature", "temperature", 0, 2, 0.1, 0.8),
      topK: slider("topK", "top-k", 1, vocabSize, 1, vocabSize),
      topP: slider("topP", "top-p", 0.05, 1, 0.05, 1),
      seed: [seed, element("label", {class: "seed"}, "seed", seed)],
    }
  }

  // Why a character can no longer be drawn; the likeliest has rank 0.
  function reasonFor(rank, {temperature, topK}) {
    if (temperature === 0) return "greedy"
    return rank >= topK ? "top-k" : "top-p"
  }

  // A row of the chart: a name, two bars on an axis from 0 to 100 %, and both numbers.
  function rowFor(name, own, chosen, cut) {
    const bars = [["own", own], ["chosen", chosen]].map(([kind, share]) => {
      const bar = element("span", {class: `bar ${kind}`})
      bar.style.width = `${100 * share}%`
      return bar
    })
    const row = element("tr", {}, element("th", {scope: "row"}, name),
      element("td", {class: "room"}, ...bars), element("td", {}, percentOf(own)),
      element("td", {}, cut ? `✕ ${cut}` : percentOf(chosen)))
    row.classList.toggle("cut", Boolean(cut))
    return row
  }

  function headOf() {
    const key = kind => element("span", {class: `bar ${kind}`})
    const ticks = element("div", {class: "axis", "aria-hidden": "true"},
      ...["0", "50", "100"].map(tick => element("span", {}, tick)))
    return element("thead", {}, element("tr", {}, element("td"),
      element("td", {class: "ticks"}, ticks),
      element("th", {scope: "col"}, key("own"), "before"),
      element("th", {scope: "col"}, key("chosen"), "after")))
  }

  function drawChart(body, logits, chars, settings) {
    const own = nextProbabilities(logits, {temperature: 1, topK: chars.length, topP: 1})
    const chosen = nextProbabilities(logits, settings)
    const ranked = [...own.keys()].sort((a, b) => own[b] - own[a] || a - b)
    const rows = ranked.slice(0, SHOWN).map((id, rank) => rowFor(visible(chars[id]), own[id],
      chosen[id], chosen[id] === 0 && reasonFor(rank, settings)))
    const rest = ranked.slice(SHOWN), left = rest.filter(id => chosen[id] > 0).length
    const sum = shares => rest.reduce((total, id) => total + shares[id], 0)
    const name = element("small", {}, `${rest.length} others`)
    rows.push(rowFor(name, sum(own), sum(chosen), left ? null : "all"))
    body.replaceChildren(...rows)
  }

  // Writes one text, a character at a time: what is to be shown is given after each.
  function* texts(model, chars, prompt, settings, seed) {
    const writer = new Writer(new GPT(model.config, model.weights), chars), random = seeded(seed)
    writer.begin(prompt)
    if (!writer.ids.length) writer.begin("\n")
    for (let i = 0; i < LENGTH; i++) {
      writer.append(writer.draw(settings, random))
      yield writer.text
    }
  }

  // Writes several texts side by side, a little in each frame, so that the page never freezes.
  // Gives a function that stops it.
  function writeAll(writings, places, done) {
    const written = []
    let asked = requestAnimationFrame(slice)
    function slice() {
      const until = performance.now() + BUDGET
      let open = true
      while (open && performance.now() < until) {
        const news = writings.map(writing => writing.next())
        open = news.some(each => !each.done)
        news.forEach(({value}, i) => { written[i] = value ?? written[i] })
      }
      if (!open || !reducedMotion()) places.forEach((place, i) => place.replaceChildren(written[i]))
      if (open) asked = requestAnimationFrame(slice)
      else done()
    }
    return () => {
      cancelAnimationFrame(asked)
      places.forEach((place, i) => place.replaceChildren(written[i] ?? ""))
    }
  }

  const cutsOf = ({topK, topP}, seed) => `top-k ${topK}, top-p ${topP}, seed ${seed}`

  const placeFor = label => element("div", {class: "text", tabindex: 0, role: "region",
    "aria-label": label})

  live.sampling = (root, data) => {
    const model = loadModel(data), chars = [...data.chars]
    const fields = fieldsFor(chars.length, data.prompt)
    const reader = new Writer(model, chars), body = element("tbody"), known = new Map()
    const place = placeFor("the text"), caption = element("span", {class: "quiet"})
    const captionOfThree = element("span", {class: "quiet"})
    const note = element("p", {class: "note", role: "status"})
    const three = TEMPERATURES.map(each => placeFor(`the text at temperature ${each}`))
    const write = element("button", {type: "button", class: "go"}, "Write")
    const compare = element("button", {type: "button"}, `Write at ${TEMPERATURES.join(", ")}`)
    let current = null // what is being written: its button, and how to stop it

    const value = name => fields[name][0].value
    const settings = () => ({temperature: +value("temperature"), topK: +value("topK"),
      topP: +value("topP")})
    const seed = () => Math.round(+value("seed")) || 0

    const draw = onceAFrame(() => {
      reader.begin(value("prompt"))
      if (!reader.ids.length) reader.begin("\n")
      drawChart(body, reader.logits, chars, settings())
    })

    // Begins to write, with a button that now stops it; what was being written stops.
    function begin(button, writings, places, after = () => {}) {
      current?.stop()
      const label = button.textContent
      const end = () => { button.textContent = label; current = null }
      const cancel = writeAll(writings, places, () => { end(); after() })
      button.textContent = "Stop"
      current = {button, stop: () => { cancel(); end() }}
    }

    function writeOne() {
      const how = settings(), begun = value("prompt"), mine = seed()
      const name = `temperature ${how.temperature}, ${cutsOf(how, mine)}`
      const key = `${name}: ${begun}`
      caption.textContent = name
      note.textContent = ""
      begin(write, [texts(model, chars, begun, how, mine)], [place], () => {
        if (known.get(key) === place.textContent) {
          note.textContent = "Same prompt, settings and seed as before: the same text."
        }
        known.set(key, place.textContent)
      })
    }

    function writeThree() {
      const how = settings()
      captionOfThree.textContent = cutsOf(how, seed())
      begin(compare, TEMPERATURES.map(temperature =>
        texts(model, chars, value("prompt"), {...how, temperature}, seed())), three)
    }

    for (const [button, begins] of [[write, writeOne], [compare, writeThree]]) {
      button.addEventListener("click", () => current?.button === button ? current.stop() : begins())
    }
    for (const [input] of Object.values(fields)) input.addEventListener("input", draw)
    root.append(
      fields.prompt[1],
      element("div", {class: "sides"},
        element("div", {}, ...["temperature", "topK", "topP", "seed"].map(name => fields[name][1])),
        element("table", {class: "numbers"}, element("caption", {}, "What follows the prompt",
          element("span", {class: "quiet"}, "before and after your settings")),
        headOf(), body)),
      element("div", {class: "row"}, write, caption), place, note,
      element("h4", {}, "The same prompt at three temperatures"),
      element("div", {class: "row"}, compare, captionOfThree),
      element("div", {class: "three"}, ...three.map((text, i) =>
        element("div", {}, element("b", {}, `temperature ${TEMPERATURES[i]}`), text))))
    draw()
  }
}
