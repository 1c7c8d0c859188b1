// Each control registers itself as live.NAME = (root, data) => {...}; its data are in live_data.NAME.
// All scripts of a page share one scope, so a control keeps its own names inside of { }.
"use strict"
const live = {}, live_data = {}

// An element with attributes and children: element("button", {class: "bar"}, "text").
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

const visible = char => ({" ": "␣", "\n": "⏎", "\t": "⇥"})[char] ?? char
const named = char => ({" ": "a space", "\n": "a line break", "\ufffd": "a rare character"})[char]
  ?? `“${char}”`
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`
const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches

// Calls a drawing function at most once a frame of the screen, however often it is asked to.
function onceAFrame(draw) {
  let asked = 0
  return () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; draw() })
  }
}

// Calls a drawing function whenever the page's colours change, for what CSS cannot colour.
function onNewColours(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw)
  const themes = new MutationObserver(draw)
  for (const node of [document.documentElement, document.body]) {
    themes.observe(node, {attributeFilter: ["data-theme"]})
  }
}

// A row of buttons of which one is chosen: gives a function that marks it, by its place.
function makeChoices(root, names, choose) {
  const buttons = names.map(name => element("button", {type: "button"}, name))
  buttons.forEach((button, i) => { button.onclick = () => choose(i) })
  root.append(...buttons)
  return chosen => buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === chosen))
}

// The likeliest characters as bars on an axis from 0 to 100 %, each a button that chooses its id.
// Gives a function that draws (chars, probabilities); the buttons stay, and keep the focus.
function makeBars(root, choose, most = 12) {
  const axis = element("div", {class: "axis", "aria-hidden": "true"},
    ...["0", "25", "50", "75", "100 %"].map(text => element("span", {}, text)))
  const rows = Array.from({length: most}, () => {
    const name = element("b"), bar = element("span", {class: "bar"}), number = element("span")
    const button = element("button", {type: "button"}, name,
      element("span", {class: "track"}, bar), number)
    return {name, bar, number, button, item: element("li", {}, button)}
  })
  const others = element("div", {class: "others"})
  root.append(axis, element("ol", {class: "bars"}, ...rows.map(row => row.item)), others)
  return (chars, probabilities) => {
    const likelier = (a, b) => probabilities[b] - probabilities[a] || a - b
    const ids = [...chars.keys()].sort(likelier).slice(0, most)
    rows.forEach(({name, bar, number, button, item}, rank) => {
      const id = ids[rank], share = probabilities[id]
      item.hidden = !(share > 0)
      if (item.hidden) return
      name.textContent = visible(chars[id])
      bar.style.width = `${100 * share}%` // of the whole axis
      number.textContent = percent(share)
      button.setAttribute("aria-label", `append ${named(chars[id])}, ${percent(share)}`)
      button.onclick = () => choose(id)
    })
    const rest = 1 - ids.reduce((sum, id) => sum + probabilities[id], 0)
    others.textContent = chars.length > most
      ? `${chars.length - most} other characters: ${percent(Math.max(0, rest))}` : ""
  }
}

// A model from what published_model in tools/live.py packed; gpt.js must be loaded.
function loadModel({config, tensors, weights}) {
  const bytes = Uint8Array.from(atob(weights), char => char.charCodeAt(0))
  return new GPT(config, unpack(tensors, bytes.buffer))
}

document.addEventListener("DOMContentLoaded", () => {
  for (const root of document.querySelectorAll("[data-live]")) {
    live[root.dataset.live](root, live_data[root.dataset.live])
    root.dataset.ready = "true"
  }
})
