// The page itself: what is typed and chosen goes to the worker, what the worker answers is drawn.
"use strict"
const $ = id => document.getElementById(id)
const model = JSON.parse($("model").textContent), chars = [...model.chars]
const visible = char => ({" ": "␣", "\n": "⏎", "\t": "⇥"})[char] ?? char
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches
let state = {text: "", nll: [], position: -1}, head = 0, writing = false

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes.buffer
}

const source = new Blob([$("worker").textContent], {type: "text/javascript"})
const worker = new Worker(URL.createObjectURL(source))
const settings = () => ({
  temperature: +$("temperature").value, topP: +$("top-p").value,
  topK: Math.max(1, Math.round(+$("top-k").value) || 1),
})
const ask = message => worker.postMessage({settings: settings(), ...message})

// How strongly a character is coloured, 0 to 1.
function strength(i) {
  if ($("paper").dataset.colour === "loss") return Math.min(1, (state.nll[i] ?? 0) / 5)
  const from = i - state.start
  return from >= 0 && i <= state.position ? state.rows[+$("block").value][head][from] ?? 0 : 0
}

function drawPaper() {
  const paper = $("paper"), letters = [...state.text]
  while (paper.children.length > letters.length) paper.lastChild.remove()
  letters.forEach((char, i) => {
    const span = paper.children[i] ?? paper.appendChild(document.createElement("span"))
    const shown = char === "\n" ? "⏎\n" : char
    if (span.textContent !== shown) span.textContent = shown
    span.style.setProperty("--strength", strength(i).toFixed(3))
    span.className = (i === state.position ? "chosen " : "") + (i < state.start ? "forgotten" : "")
    const nll = state.nll[i]
    span.title = nll == null ? "the first character" : `${visible(char)}: ${nll.toFixed(2)} nats`
  })
  if (writing && !reducedMotion) paper.scrollTop = paper.scrollHeight
}

function drawAbout() {
  const {position, start, nll, text, rows} = state
  if (position < 0) { $("about").textContent = "Nothing yet: type something, or press Write."; return }
  const char = [...text][position], row = rows[+$("block").value][head]
  const most = row.indexOf(Math.max(...row))
  const loss = nll[position] == null ? "nothing came before it" : `${nll[position].toFixed(2)} nats`
  $("about").textContent = `Position ${position}, “${visible(char)}”: ${loss}. `
    + `Block ${$("block").value}, head ${head} looks most at “${visible([...text][start + most])}”, `
    + `position ${start + most} (${(100 * row[most]).toFixed(0)} %).`
}

function drawNext() {
  const likeliest = state.probabilities
    ? [...state.probabilities.keys()].sort((a, b) => state.probabilities[b] - state.probabilities[a])
    : []
  $("next").replaceChildren(...likeliest.slice(0, 12).map(id => {
    const share = state.probabilities[id], button = document.createElement("button")
    const bar = document.createElement("span"), name = document.createElement("b")
    const number = document.createElement("span")
    bar.className = "bar"
    bar.style.width = `${100 * share}%` // of a fixed axis: the whole width is 100 %
    name.textContent = visible(chars[id])
    number.textContent = `${(100 * share).toFixed(1)} %`
    button.append(name, bar, number)
    button.setAttribute("aria-label", `append ${visible(chars[id])}, ${number.textContent}`)
    button.onclick = () => ask({append: id})
    const item = document.createElement("li")
    item.append(button)
    return item
  }))
}

function drawMaps() {
  const {length} = state
  $("maps").replaceChildren(...(state.maps ?? []).map((map, h) => {
    const canvas = document.createElement("canvas"), button = document.createElement("button")
    canvas.width = canvas.height = length
    const context = canvas.getContext("2d"), image = context.createImageData(length, length)
    const [red, green, blue] = getComputedStyle(document.documentElement)
      .getPropertyValue("--ink-rgb").split(",").map(Number)
    map.forEach((weight, i) => image.data.set([red, green, blue, 255 * Math.sqrt(weight)], 4 * i))
    context.putImageData(image, 0, 0)
    if (length > 80) canvas.style.imageRendering = "auto" // made smaller: no thin line may be lost
    button.append(canvas, `head ${h}`)
    button.setAttribute("aria-pressed", h === head)
    button.onclick = () => { head = h; draw() }
    return button
  }))
}

function drawLens() {
  const rows = (state.lens ?? []).map((probabilities, depth) => {
    const row = document.createElement("tr"), name = row.appendChild(document.createElement("th"))
    name.textContent = depth ? `after block ${depth - 1}` : "before block 0"
    const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a])
    for (const id of best.slice(0, 5)) {
      const cell = row.appendChild(document.createElement("td"))
      cell.textContent = visible(chars[id])
      cell.style.setProperty("--strength", probabilities[id].toFixed(3))
      cell.title = `${(100 * probabilities[id]).toFixed(1)} %`
    }
    return row
  })
  $("lens").replaceChildren(...rows)
}

function draw() {
  drawPaper()
  drawAbout()
  drawNext()
  if (!writing) { drawMaps(); drawLens() }
}

worker.onmessage = ({data}) => {
  state = data
  writing = Boolean(data.writing)
  $("write").textContent = writing ? "Stop" : "Write"
  if (data.rate) $("note").textContent = `${Math.round(data.rate).toLocaleString("en")} characters a second`
  if (document.activeElement !== $("prompt")) $("prompt").value = data.text
  document.documentElement.dataset.ready = "true"
  draw()
}
worker.onerror = event => { $("note").textContent = `The model stopped: ${event.message}` }

$("prompt").oninput = () => {
  const unknown = chars.includes("\ufffd") ? "" : [...$("prompt").value].find(c => !chars.includes(c))
  $("note").textContent = unknown ? `“${unknown}” is not in the model's vocabulary and is left out.` : ""
  ask({text: $("prompt").value})
}
$("write").onclick = () => {
  $("prompt").blur()
  $("note").textContent = ""
  const count = Math.max(1, Math.min(5000, Math.round(+$("count").value) || 1))
  ask(writing ? {stop: true} : {write: count, seed: Math.round(+$("seed").value) || 0})
}
for (const name of ["temperature", "top-p"]) {
  $(name).oninput = () => { $(`${name}-value`).textContent = $(name).value; ask({}) }
}
$("top-k").oninput = () => ask({})
$("block").append(...Array.from({length: model.config.num_blocks}, (_, b) => new Option(b, b)))
$("block").onchange = () => ask({block: +$("block").value})
for (const choice of document.getElementsByName("colour")) {
  choice.onchange = () => { $("paper").dataset.colour = choice.value; drawPaper() }
}
$("paper").dataset.colour = "loss"
$("paper").onmouseover = event => {
  const i = [...$("paper").children].indexOf(event.target)
  if (i >= state.start && !writing) ask({look: i})
}
$("paper").onkeydown = event => {
  const by = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key]
  if (by === undefined || writing) return
  event.preventDefault()
  const last = state.nll.length - 1
  ask({look: Math.min(last, Math.max(state.start, state.position + by))})
}

const {config, tensors} = model
ask({load: {config, tensors, chars: model.chars, bytes: bytesOf($("weights").textContent)},
  text: $("prompt").value})
$("weights").remove() // it is kept once
