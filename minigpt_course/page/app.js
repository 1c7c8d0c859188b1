// The page itself: what is typed and chosen goes to the worker, what the worker answers is drawn.
"use strict"
const $ = id => document.getElementById(id)
const model = JSON.parse($("model").textContent), chars = [...model.chars]
const visible = char => ({" ": "␣", "\n": "⏎", "\t": "⇥"})[char] ?? char
const named = char => ({" ": "a space", "\n": "a line break", "\t": "a tab"})[char] ?? char
let state = {text: "", nll: [], position: -1}, head = 0, writing = false
let turn = 0 // of what was typed or pressed: an answer to what came before it is too late

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes.buffer
}

const source = new Blob([$("worker").textContent], {type: "text/javascript"})
const worker = new Worker(URL.createObjectURL(source))
// A field's whole number, brought into its range.
const whole = name => {
  const {value, min, max} = $(name)
  return Math.min(+max, Math.max(+min, Math.round(+value) || 0))
}
const settings = () => ({
  temperature: +$("temperature").value, topP: +$("top-p").value,
  topK: whole("top-k"),
})
// The turn of the text that is being read, 0 if none is; whether a newer one waits for its end.
let reading = 0, waits = false
function ask(message) {
  if (waits && message.text === undefined) readTyped()
  worker.postMessage({settings: settings(), turn, ...message})
}

function readTyped() {
  reading = turn
  waits = false
  ask({text: $("prompt").value})
}

const ranked = shares => [...shares.keys()].sort((a, b) => shares[b] - shares[a])
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`

// A list's elements, as many as are wanted; those that are there stay, and keep the focus.
function children(list, count, make) {
  while (list.children.length > count) list.lastChild.remove()
  while (list.children.length < count) list.append(make(list.children.length))
  return list.children
}

// How strongly a character is coloured, 0 to 1.
function strength(i) {
  if ($("paper").dataset.colour === "loss") return Math.min(1, (state.nll[i] ?? 0) / 5)
  const from = i - state.start
  return from >= 0 && i <= state.position ? state.rows[+$("block").value][head][from] ?? 0 : 0
}

function drawPaper() {
  const paper = $("paper"), letters = [...state.text]
  const spans = children(paper, letters.length, () => document.createElement("span"))
  letters.forEach((char, i) => {
    const span = spans[i]
    const shown = char === "\n" ? "⏎\n" : char
    if (span.textContent !== shown) span.textContent = shown
    span.style.setProperty("--strength", strength(i).toFixed(3))
    span.className = (i === state.position ? "chosen " : "") + (i < state.start ? "forgotten" : "")
    const nll = state.nll[i]
    span.title = nll == null ? "the first character" : `${visible(char)}: ${nll.toFixed(2)} nats`
  })
  $("sight").textContent = state.start > 0 ? `Grey: out of the model's sight. It sees at most `
    + `${model.config.context_length} characters; when they are full it starts over with the last `
    + "quarter, so that it need not read all of them anew for each character." : ""
}

function drawAbout() {
  const {position, start, nll, text, rows} = state
  if (position < 0) { $("about").textContent = "Nothing yet: type something, or press Write."; return }
  const char = [...text][position], row = rows[+$("block").value][head]
  const most = row.indexOf(Math.max(...row))
  const loss = nll[position] == null ? "nothing came before it"
    : `the model gave it ${percent(Math.exp(-nll[position]))} (${nll[position].toFixed(2)} nats)`
  $("about").textContent = `Position ${position}, “${visible(char)}”: ${loss}. `
    + `Block ${$("block").value}, head ${head} looks most at “${visible([...text][start + most])}”, `
    + `position ${start + most} (${percent(row[most], 0)}).`
}

function drawNext() {
  const likeliest = ranked(state.probabilities ?? [])
  const shown = likeliest.slice(0, 12).filter(id => state.probabilities[id] >= 0.0005)
  const others = shown.reduce((rest, id) => rest - state.probabilities[id], 1)
  $("others").textContent = likeliest.length
    ? `${likeliest.length - shown.length} other characters: ${percent(Math.max(0, others))}` : ""
  const items = children($("next"), shown.length, () => {
    const item = document.createElement("li"), button = document.createElement("button")
    for (const tag of ["b", "span", "span"]) button.append(document.createElement(tag))
    button.children[1].className = "bar"
    item.append(button)
    return item
  })
  shown.forEach((id, rank) => {
    const button = items[rank].firstChild, [name, bar, number] = button.children
    const share = state.probabilities[id]
    bar.style.width = `${100 * share}%` // of a fixed axis: the whole width is 100 %
    name.textContent = visible(chars[id])
    number.textContent = percent(share)
    button.setAttribute("aria-label", `append ${named(chars[id])}, ${number.textContent}`)
    button.onclick = () => ask({append: id})
  })
}

function drawMaps() {
  const {length} = state, maps = length ? state.maps ?? [] : []
  const [red, green, blue] = getComputedStyle(document.documentElement)
    .getPropertyValue("--ink-rgb").split(",").map(Number)
  const buttons = children($("maps"), maps.length, h => {
    const button = document.createElement("button")
    const map = button.appendChild(document.createElement("span"))
    map.append(document.createElement("canvas"), document.createElement("i"))
    map.className = "map"
    button.append(`head ${h}`)
    button.onclick = () => { head = h; draw() }
    return button
  })
  maps.forEach((map, h) => {
    const [canvas, row] = buttons[h].firstChild.children, context = canvas.getContext("2d")
    canvas.width = canvas.height = length
    const image = context.createImageData(length, length)
    map.forEach((weight, i) => image.data.set([red, green, blue, 255 * Math.sqrt(weight)], 4 * i))
    context.putImageData(image, 0, 0)
    row.style.top = `${100 * (state.position - state.start) / length}%` // the chosen position's
    row.style.height = `${100 / length}%`
    canvas.style.imageRendering = length > 80 ? "auto" : "" // made smaller: no thin line may be lost
    buttons[h].setAttribute("aria-pressed", h === head)
  })
}

function drawLens() {
  const rows = (state.lens ?? []).map((probabilities, depth) => {
    const row = document.createElement("tr"), name = row.appendChild(document.createElement("th"))
    name.textContent = depth ? `after block ${depth - 1}` : "before block 0"
    for (const id of ranked(probabilities).slice(0, 5)) {
      const cell = row.appendChild(document.createElement("td"))
      cell.textContent = visible(chars[id])
      cell.style.setProperty("--strength", probabilities[id].toFixed(3))
      cell.title = percent(probabilities[id])
    }
    return row
  })
  $("lens").replaceChildren(...rows)
}

function draw() {
  $("about").setAttribute("aria-live", writing ? "off" : "polite") // too fast to be heard
  drawPaper()
  drawAbout()
  drawNext()
  if (!writing) { drawMaps(); drawLens() }
  $("inside").classList.toggle("stale", writing)
}

worker.onmessage = ({data}) => {
  if (data.turn >= reading) reading = 0
  if (waits && !reading) readTyped()
  if (data.turn < turn) return
  state = data
  writing = Boolean(data.writing)
  $("write").textContent = writing ? "Stop" : "Write"
  if (data.rate) $("note").textContent = `${Math.round(data.rate).toLocaleString("en")} characters a second`
  if ((data.grown || document.activeElement !== $("prompt")) && $("prompt").value !== data.text) {
    $("prompt").value = data.text
    $("prompt").scrollTop = $("prompt").scrollHeight
  }
  document.documentElement.dataset.ready = "true"
  draw()
  if (data.grown) $("paper").scrollTop = $("paper").scrollHeight
}
worker.onerror = event => { $("note").textContent = `The model stopped: ${event.message}` }

$("prompt").oninput = () => {
  const unknown = [...$("prompt").value].find(char => !chars.includes(char))
  const read = chars.includes("\ufffd") ? "read as �" : "left out"
  $("note").textContent = unknown ? `“${unknown}” is not in the model's vocabulary and is ${read}.` : ""
  turn++
  if (reading) waits = true // what is typed meanwhile is read at once
  else readTyped()
}
$("write").onclick = () => {
  $("note").textContent = ""
  if (waits) readTyped()
  turn++
  ask(writing ? {stop: true} : {write: whole("count"), seed: Math.round(+$("seed").value) || 0})
  writing = !writing // at once: a second click stops what the first began
}
$("prompt").onkeydown = event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("write").click()
}
$("maps").style.setProperty("--heads", Math.min(4, Math.ceil(model.config.num_heads / 2)))
for (const name of ["temperature", "top-p"]) {
  $(name).oninput = () => { $(`${name}-value`).textContent = $(name).value; ask({}) }
}
$("top-k").oninput = () => ask({})
for (const name of ["top-k", "count"]) {
  $(name).onchange = () => { $(name).value = whole(name) }
}
$("block").append(...Array.from({length: model.config.num_blocks}, (_, b) => new Option(b, b)))
$("block").onchange = () => ask({block: +$("block").value})
for (const choice of document.getElementsByName("colour")) {
  choice.onchange = () => { $("paper").dataset.colour = choice.value; drawPaper() }
}
matchMedia("(prefers-color-scheme: dark)").onchange = draw
$("paper").dataset.colour = "loss"
$("paper").onmouseover = $("paper").onclick = event => {
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
