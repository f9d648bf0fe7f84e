// Where ticks, names and points of a chart stand.

const LONGEST_NAME = 24
const NAME_HEIGHT = 16
const NEAR = 7
const BESIDE = 8 // between equal points

/** Round numbers within [low, high], about `wanted` of them. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough)
  const first = Math.ceil(low / step - 1e-9)
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}

function logTicks(low, high) {
  const found = []
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) found.push(Number((factor * 10 ** power).toPrecision(12)))
  }
  return found.filter((value) => value >= low && value <= high)
}

const shortened = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name)
const roomFor = (name) => 7.5 * shortened(name).length + 30

/** Move each name by steps until neither those before it nor those that are `fixed` stand in its way. */
function moveApart(names, fixed, step) {
  const placed = [...fixed]
  for (const name of names) {
    const overlaps = (other) => other.left < name.left + name.size && name.left < other.left + other.size
    const inTheWay = () => placed.find((other) => Math.abs(other.y - name.y) < NAME_HEIGHT - 0.01 && overlaps(other))
    while (inTheWay()) name.y = inTheWay().y + step
    placed.push(name)
  }
}

/** Move each point sideways by the fewest steps to where no other hides it; equal points stand beside each other. `home` is where it was. */
function sideBySide(points) {
  const placed = []
  for (const point of points) {
    const [x, y] = point.at
    const taken = (left) => placed.some((other) => Math.abs(other[0] - left) < BESIDE - 0.01 && Math.abs(other[1] - y) < BESIDE / 2)
    let steps = 0
    while (taken(x + steps * BESIDE)) steps = steps > 0 ? -steps : 1 - steps
    point.home = x
    point.at = [x + steps * BESIDE, y]
    placed.push(point.at)
  }
}
