// The worker's side of the page: messages in, messages out.
"use strict"
let writer = null, settings = null, look = null, block = 0, run = 0, busy = false, turn = 0

function show(more = {}) {
  const maps = more.writing ? [] : writer.maps(block) // large: not while it writes
  postMessage({...writer.state(settings, look), maps, length: writer.model.length, turn, ...more})
}

async function write(count, seed) {
  const mine = ++run, random = seeded(seed), began = performance.now()
  if (!writer.ids.length) writer.append(Math.max(0, writer.idOf("\n")))
  let shown = began, written = 0
  look = null
  busy = true
  while (written < count && mine === run) {
    writer.append(writer.draw(settings, random))
    written++
    if (performance.now() - shown < 60) continue
    show({writing: true, grown: true})
    await new Promise(resolve => setTimeout(resolve)) // let other messages in
    shown = performance.now()
  }
  if (mine !== run) return
  busy = false
  show({grown: true, rate: written / (performance.now() - began) * 1000})
}

onmessage = ({data}) => {
  turn = data.turn
  if (data.settings) settings = data.settings
  if (data.look !== undefined) look = data.look
  if (data.block !== undefined) block = data.block
  if (data.load) {
    const {config, tensors, bytes, chars} = data.load
    writer = new Writer(new GPT(config, unpack(tensors, bytes)), chars)
  }
  const grown = data.append !== undefined || Boolean(data.stop)
  if (data.text !== undefined || grown) { run++; busy = false }
  if (data.text !== undefined) { look = null; writer.begin(data.text) }
  if (data.append !== undefined) { look = null; writer.append(data.append) }
  if (data.write) write(data.write, data.seed)
  else if (!busy) show({grown}) // the loop that writes shows by itself
}
