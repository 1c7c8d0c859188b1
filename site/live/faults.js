// Notebook 09 as a quiz: trained models with a hidden fault, and what can be measured of each.
"use strict"
{
  const WIDTH = 460, HEIGHT = 250, LEFT = 34, RIGHT = 18, TOP = 8, BOTTOM = 34 // of the curves
  const HIGHEST = 5 // nats per character on the axis

  // A part of a drawing: shape("line", {x1: 0, ...}).
  function shape(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag)
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
    made.append(...children)
    return made
  }

  const last = list => list[list.length - 1]
  const whole = number => number.toLocaleString("en")
  const xOf = (step, steps) => LEFT + (WIDTH - LEFT - RIGHT) * step / steps
  const yOf = loss => TOP + (HEIGHT - TOP - BOTTOM) * (1 - loss / HIGHEST)

  // A line through (step, loss), cut off at the upper edge of the axis.
  function lineOf(kind, points, steps) {
    const at = points.map(([step, loss]) => `${xOf(step, steps)},${yOf(Math.min(loss, 1000))}`)
    return shape("polyline", {class: kind, points: at.join(" ")})
  }

  function axesOf(steps) {
    const parts = []
    for (let loss = 0; loss <= HIGHEST; loss++) {
      const y = yOf(loss)
      parts.push(shape("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y}),
        shape("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, loss))
    }
    for (let step = 0; step <= steps; step += steps / 5) {
      const x = xOf(step, steps)
      parts.push(shape("text", {x, y: HEIGHT - 18, "text-anchor": "middle"}, step))
    }
    parts.push(shape("text", {x: WIDTH / 2, y: HEIGHT - 3, "text-anchor": "middle"}, "step"))
    return parts
  }

  // Training and validation loss of a model over those of its healthy twins.
  function curvesOf(run, twins, {every, steps}) {
    const training = each => each.training.map((loss, i) => [(i + 0.5) * every, loss])
    const clip = "live-faults-axes"
    const lines = shape("g", {"clip-path": `url(#${clip})`},
      ...twins.map(twin => lineOf("twin", training(twin), steps)),
      ...twins.map(twin => lineOf("twin validation", twin.validations, steps)),
      lineOf("own", training(run), steps), lineOf("own validation", run.validations, steps))
    const room = shape("clipPath", {id: clip},
      shape("rect", {x: LEFT, y: TOP - 2, width: WIDTH - LEFT - RIGHT,
        height: HEIGHT - TOP - BOTTOM + 4}))
    return shape("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label":
      `Loss over ${steps} steps: training ends at ${last(run.training)}, validation at `
      + `${last(run.validations)[1]}.`}, room, ...axesOf(steps), lines)
  }

  // A line of the key: a stroke as in the picture, what it is, and where it ends.
  function keyOf(kind, label, losses) {
    const stroke = shape("svg", {viewBox: "0 0 28 8", class: "stroke", "aria-hidden": "true"},
      shape("polyline", {class: kind, points: "0,4 28,4"}))
    const [low, high] = [Math.min(...losses), Math.max(...losses)]
    const ends = losses.length > 1 ? `${low.toFixed(2)} to ${high.toFixed(2)}` : low.toFixed(2)
    const over = low > HIGHEST ? " ↑ off the axis" : ""
    return element("tr", {}, element("td", {}, stroke), element("th", {scope: "row"}, label),
      element("td", {}, ends + over))
  }

  // Which inputs move which outputs of its attention, and what the weights of each position sum to.
  function mapOf({map, sums}) {
    const size = 18, right = map.length * size + 14, most = 60, parts = []
    map.forEach((row, i) => row.forEach((moves, j) => {
      const future = j > i, [x, y] = [j * size, i * size]
      const kind = moves ? future ? "future" : "past" : future ? "" : "hole"
      parts.push(shape("rect",
        {class: `cell ${kind}`, x: x + 1, y: y + 1, width: size - 2, height: size - 2}))
      if (moves && future) {
        parts.push(shape("path", {class: "cross",
          d: `M${x + 5},${y + 5}l8,8m0,-8l-8,8`}))
      }
    }))
    sums.forEach((sum, i) => parts.push(shape("rect", {class: "sum", x: right, y: i * size + 4,
      width: most * Math.min(sum, 3.2) / 3.2, height: size - 8})))
    const one = right + most / 3.2
    parts.push(shape("line", {class: "one", x1: one, x2: one, y1: 0, y2: 12 * size}),
      shape("text", {x: one, y: 12 * size + 13, "text-anchor": "middle"}, "1"))
    const ahead = map.flatMap((row, i) => row.filter((moves, j) => moves && j > i)).length
    const holes = map.flatMap((row, i) => row.filter((moves, j) => !moves && j <= i)).length
    return shape("svg", {viewBox: `-2 -2 ${right + most + 4} ${12 * size + 20}`, role: "img",
      class: "map", "aria-label": `Twelve positions of attention: outputs depend on ${ahead} later `
        + `inputs and leave out ${holes} earlier ones; weights sum to ${sums[0].toFixed(2)} at the `
        + `first position and ${last(sums).toFixed(2)} at the last.`}, ...parts)
  }

  function findingsOf(findings) {
    const cells = (kind, ...texts) => element("tr", {},
      ...texts.map(text => element(kind, {}, text)))
    const rows = findings.map(finding => {
      const row = cells("td", finding.what, finding.value, finding.expected)
      row.classList.toggle("telling", finding.telling)
      return row
    })
    if (!rows.length) return element("p", {}, "Every measurement is as healthy models have it.")
    return element("table", {class: "numbers findings"},
      element("thead", {}, cells("th", "unlike healthy models", "here", "healthy")),
      element("tbody", {}, ...rows))
  }

  // The address of a section of the notebook, from its heading.
  const addressOf = (page, heading) => `${page}#` + heading.toLowerCase()
    .replace(/[^a-z0-9 -]/g, "").replaceAll(" ", "-")

  function shuffled(list, seed) {
    const random = seeded(seed), keys = new Map(list.map(each => [each, random()]))
    return [...list].sort((a, b) => keys.get(a) - keys.get(b))
  }

  const plain = heading => heading.replaceAll("`", "")

  live.faults = (root, data) => {
    const names = Object.keys(data.clues)
    const seed = element("input", {type: "number", min: 0, step: 1, value: 1})
    const again = element("button", {type: "button"}, "New order")
    const status = element("p", {class: "score", tabindex: -1}), board = element("div")
    let cases = [], at = 0, first = []

    const linkTo = name => element("a", {href: addressOf(data.page, data.clues[name].section)},
      plain(data.clues[name].section))

    function begin() {
      cases = shuffled(data.cases, Math.round(+seed.value) || 0)
      at = 0
      first = [] // whether the first answer to each was right
      show()
    }

    function drawStatus() {
      const right = first.filter(Boolean).length
      status.textContent = `Model ${Math.min(at + 1, cases.length)} of ${cases.length} · `
        + `score ${right} of ${first.length}`
    }

    function evidence(model) {
      const twins = data.twins[model.twin].filter(
        twin => model.name !== model.twin || twin.seed !== model.seed)
      const ends = runs => [runs.map(run => last(run.training)),
        runs.map(run => last(run.validations)[1])]
      const [ownEnds, twinEnds] = [ends([model]), ends(twins)]
      const key = element("table", {class: "numbers key"}, element("tbody", {},
        keyOf("own", "training", ownEnds[0]), keyOf("own validation", "validation", ownEnds[1]),
        keyOf("twin", `training, ${twins.length} healthy twins`, twinEnds[0]),
        keyOf("twin validation", "validation, healthy twins", twinEnds[1])))
      const map = element("div", {}, element("h4", {}, "Who depends on whom in its attention"),
        mapOf(model), element("p", {class: "quiet"}, "A row is an output, a column an input: ",
          element("span", {class: "past"}, "■"), " it depends on that, ",
          element("span", {class: "future"}, "✕"), " though that comes later, ",
          element("span", {class: "hole"}, "□"), " it should and does not. "
          + "Bars: what the weights of each position sum to."))
      return [element("p", {class: "quiet"}, `Trained for ${whole(data.steps)} steps on `
        + `${whole(model.characters ?? data.characters)} characters. What is wrong with it, `
        + "if anything?"),
      element("div", {class: "sides"},
        element("div", {}, element("h4", {}, "Loss in nats per character"),
          curvesOf(model, twins, data), key), map,
        element("div", {}, element("h4", {}, "Measurements"), findingsOf(model.findings),
          element("p", {}, "Loss on another text: ",
            element("b", {}, model["another text"].toFixed(2)))),
        element("div", {}, element("h4", {}, "What it writes"),
          element("pre", {tabindex: 0, "aria-label": "what it writes"}, model.text)))]
    }

    function goOn() {
      at++
      if (at < cases.length) show()
      else showResult()
      status.focus() // the button that had the focus is gone
    }

    function show() {
      const model = cases[at], verdict = element("div", {class: "verdict", role: "status"})
      const next = element("button", {type: "button", class: "go"},
        at + 1 < cases.length ? "Next model" : "Result")
      next.hidden = true
      board.classList.remove("solved") // of the model before
      next.addEventListener("click", goOn)
      const buttons = names.map(name => {
        const button = element("button", {type: "button"}, name)
        button.addEventListener("click", () =>
          answer(model, name, button, {verdict, buttons, next}))
        return button
      })
      board.replaceChildren(...evidence(model), element("h4", {}, "Your diagnosis"),
        element("div", {class: "row choices", role: "group", "aria-label": "diagnoses"},
          ...buttons),
        verdict, next)
      drawStatus()
    }

    function answer(model, name, button, {verdict, buttons, next}) {
      if (button.className) return // answered already
      const right = name === model.diagnosis
      first[at] ??= right
      button.classList.add(right ? "right" : "wrong")
      button.prepend(right ? "✓ " : "✕ ")
      for (const other of buttons) other.disabled = right
      verdict.className = `verdict ${right ? "right" : "wrong"}`
      verdict.replaceChildren(...(right ? praise(model) : hint(model, name)))
      board.classList.toggle("solved", right)
      next.hidden = !right
      if (right) next.focus()
      drawStatus()
    }

    function hint(model, name) {
      const {clues} = data
      return [element("b", {}, `✕ Not “${name}”. `), `That would show ${clues[name].shows}. `,
        element("b", {}, "Look at "), `${clues[model.diagnosis].look}.`]
    }

    function praise(model) {
      const parts = [element("b", {}, `✓ Right: ${model.diagnosis}. `),
        model.name === model.diagnosis ? "" : `This one was trained as “${model.name}”. `,
        `What gives it away: ${data.clues[model.diagnosis].shows}. More in 09, `,
        linkTo(model.diagnosis), "."]
      if (model.name === model.diagnosis) {
        parts.push(element("pre", {}, element("del", {}, model.wrong || "(nothing)"), "\n",
          element("ins", {}, model.right)))
      }
      return parts
    }

    function showResult() {
      const right = first.filter(Boolean).length, missed = cases.filter((_, i) => !first[i])
      const items = missed.map(({diagnosis, name}) => element("li", {}, element("b", {}, diagnosis),
        name === diagnosis ? "" : ` (${name})`, `: ${data.clues[diagnosis].shows}. In 09: `,
        linkTo(diagnosis)))
      status.textContent = `Score: ${right} of ${cases.length} at the first try`
      board.replaceChildren(missed.length ? element("p", {}, "Look at these again:")
        : element("p", {class: "verdict right"}, "✓ Every one at the first try."),
      element("ul", {}, ...items))
    }

    again.addEventListener("click", begin)
    const faulty = data.cases.filter(({name, diagnosis}) => name === diagnosis).length
    const all = data.cases.length
    root.append(
      element("p", {class: "quiet"}, `${all} small GPTs: ${faulty} with one fault each, `
        + `${all - faulty} healthy. Choose a diagnosis; only the first counts.`),
      element("div", {class: "row"}, status, element("label", {}, "order (seed)", seed), again),
      board)
    begin()
  }
}
