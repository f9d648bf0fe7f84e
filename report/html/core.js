// Everything from data becomes text: nothing here makes markup of a string, and the page's policy forbids it.

const find = (root, selector) => root.querySelector(selector)
const findAll = (root, selector) => [...root.querySelectorAll(selector)]

/** Make an element like `like` (its namespace) with attributes and children: elements, or strings that become text. */
function make(like, name, attributes = {}, ...children) {
  const element = document.createElementNS(like.namespaceURI, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children)
  return element
}

const html = (name, attributes, ...children) => make(document.body, name, attributes, ...children)
const svg = (name, attributes, ...children) => make(find(document, 'svg'), name, attributes, ...children)

function option(label, value) {
  return html('option', { value }, label)
}

// Colour and shape of a pruner by its number. The first of both is random's; with the other 14 colours and all 15 shapes no
// pair comes twice before the 210th.
const COLOURS = 14
const SHAPES = [
  'M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z', // circle
  'M-4.6 -4.6H4.6V4.6H-4.6Z', // square
  'M0 -5.8L5.8 4.6H-5.8Z', // triangle
  'M0 -6.4L6.4 0L0 6.4L-6.4 0Z', // diamond
  'M0 5.8L5.8 -4.6H-5.8Z', // triangle that points down
  'M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z', // plus
  'M0 -6.2L5.9 -1.9L3.6 5H-3.6L-5.9 -1.9Z', // pentagon
  'M-5.7 -2.8L-2.8 -5.7L0 -2.9L2.8 -5.7L5.7 -2.8L2.9 0L5.7 2.8L2.8 5.7L0 2.9L-2.8 5.7L-5.7 2.8L-2.9 0Z', // cross
  'M-6 -3.2H6V3.2H-6Z', // bar
  'M-5.8 0L4.6 -5.8V5.8Z', // triangle that points left
  'M5.8 0L-4.6 -5.8V5.8Z', // triangle that points right
  'M-3.2 -6H3.2V6H-3.2Z', // upright bar
  'M-5.2 -5.6H5.2L0 0L5.2 5.6H-5.2L0 0Z', // hourglass
  'M0 -6.8L1.9 -1.9L6.8 0L1.9 1.9L0 6.8L-1.9 1.9L-6.8 0L-1.9 -1.9Z', // star of four
  'M-6 2.4A6 6 0 0 1 6 2.4V4H-6Z', // half circle
]
const VANILLA = 'M0 -7L1.9 -2.4L6.7 -2.2L2.9 0.9L4.3 5.7L0 2.9L-4.3 5.7L-2.9 0.9L-6.7 -2.2L-1.9 -2.4Z' // star

const colour = (number) => (number < 0 ? 'vanilla' : `c${number && ((number - 1) % COLOURS) + 1}`)

function marker(number) {
  return svg('path', { class: `shape ${colour(number)}`, d: number < 0 ? VANILLA : SHAPES[number % SHAPES.length] })
}
