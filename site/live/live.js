// Each control registers itself as live.NAME = (root, data) => {...}; its data are in live_data.NAME.
// All scripts of a page share one scope, so a control keeps its own names inside of { }.
"use strict"
const live = {}, live_data = {}

// An element with attributes and children: element("button", {class: "bar"}, "text").
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  if (/^(input|select|textarea)$/.test(tag)) made.autocomplete = "off" // begins anew after "back"
  made.append(...children)
  return made
}

const visible = char => ({" ": "␣", "\n": "⏎", "\t": "⇥"})[char] ?? char
const named = char => ({" ": "a space", "\n": "a line break", "\ufffd": "a rare character"})[char]
  ?? `“${char}”`
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`
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
