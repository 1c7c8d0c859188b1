// Each control registers itself as live.NAME = (root, data) => {...}; its data are in live_data.NAME.
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

document.addEventListener("DOMContentLoaded", () => {
  for (const root of document.querySelectorAll("[data-live]")) {
    live[root.dataset.live](root, live_data[root.dataset.live])
    root.dataset.ready = "true"
  }
})
