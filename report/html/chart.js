const MARGIN = { left: 52, right: 18, top: 14, bottom: 46 }
const ROOM_FOR_NAMES = 560 // narrower charts leave the names to the filters above, which carry the same markers
const NAME_HEIGHT = 16
const NEAR = 7

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

/** Points that nothing beats: whatever costs no more is less accurate. */
function paretoFront(points, key) {
  const front = []
  for (const point of [...points].sort((a, b) => a.x[key] - b.x[key] || b.y - a.y)) {
    if (!front.length || point.y > front.at(-1).y) front.push(point)
  }
  return front
}

/** Accuracy against a cost, drawn anew for every width, filter and axis. */
class Chart {
  constructor(part, axes, points) {
    this.figure = find(part, 'figure.chart')
    this.svg = find(this.figure, 'svg')
    this.tip = find(this.figure, '.tip')
    this.points = points
    this.axes = axes
    this.shown = new Set()
    this.select = find(this.figure, 'select')
    this.select.append(...axes.map((axis) => option(axis.label, axis.key)))
    this.select.parentElement.hidden = axes.length < 2
    this.select.addEventListener('change', () => this.draw())
    this.svg.addEventListener('keydown', (event) => this.move(event))
    const canvas = this.svg.parentElement
    new ResizeObserver(() => canvas.clientWidth !== this.width && this.draw()).observe(canvas)
  }

  show(rows) {
    this.shown = rows
    this.draw()
  }

  draw() {
    const width = this.svg.parentElement.clientWidth
    const axis = this.axes.find((one) => one.key === this.select.value)
    if (!axis || !width) return
    this.tell(axis)
    this.width = width
    const height = Math.round(Math.min(460, Math.max(300, width * 0.52)))
    this.hideTip()
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
    this.svg.setAttribute('height', height)
    const measured = this.points.filter((point) => point.x[axis.key] !== null)
    const points = measured.filter((point) => this.shown.has(point.row))
    if (points.length) this.scale(points, axis, width, height)
    else this.scale(measured, axis, width, height)
    const places = points.map((point) => ({ ...point, at: [this.x(point.x[axis.key]), this.y(point.y)] }))
    const complete = places.filter((point) => !point.partial)
    this.svg.replaceChildren(
      this.frame(axis, width, height),
      this.front(paretoFront(complete, axis.key)),
      ...this.curves(complete),
      ...(width < ROOM_FOR_NAMES ? [] : this.names(places, width, height)),
      ...this.markers(places, axis),
    )
  }

  /** Say where the cost comes from, and which of the rows shown have none. */
  tell(axis) {
    const [source, missing] = ['.source', '.missing'].map((name) => find(this.figure, name))
    source.textContent = `Cost as profiled: ${axis.source}.`
    source.hidden = !axis.source
    const rows = this.points.filter((point) => this.shown.has(point.row) && point.x[axis.key] === null)
    missing.textContent = `Not drawn, since their cost is not known: ${rows.map((point) => `${point.label}, ${point.budget}`).join('; ')}.`
    missing.hidden = !rows.length
  }

  scale(points, axis, width, height) {
    const xs = points.map((point) => point.x[axis.key])
    const ys = points.flatMap((point) => [point.y, ...(point.interval ?? [])])
    const warp = axis.log ? Math.log : (value) => value
    const pad = axis.log ? 1.12 : 1 + 0.04
    this.domain = axis.log ? [Math.min(...xs) / pad, Math.max(...xs) * pad] : [0, Math.max(...xs) * pad]
    const spread = Math.max(Math.max(...ys, 100) - Math.min(...ys), 5)
    this.range = [Math.max(0, Math.min(...ys) - 0.08 * spread), Math.max(...ys, 100) + 0.04 * spread]
    const across = (width - MARGIN.left - MARGIN.right) / (warp(this.domain[1]) - warp(this.domain[0]))
    const up = (height - MARGIN.top - MARGIN.bottom) / (this.range[1] - this.range[0])
    this.x = (value) => MARGIN.left + across * (warp(value) - warp(this.domain[0]))
    this.y = (value) => height - MARGIN.bottom - up * (value - this.range[0])
  }

  frame(axis, width, height) {
    const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom]
    const frame = svg('g', { class: 'frame', 'aria-hidden': 'true' })
    const text = (x, y, anchor, words, more = {}) => svg('text', { x, y, 'text-anchor': anchor, ...more }, words)
    for (const value of ticks(...this.range, 6)) {
      const y = this.y(value)
      const kind = value === 100 ? 'hundred' : 'grid'
      frame.append(svg('line', { class: kind, x1: left, x2: right, y1: y, y2: y }), text(left - 8, y + 4, 'end', `${value} %`))
    }
    for (const value of axis.log ? logTicks(...this.domain) : ticks(...this.domain, width / 90)) {
      const x = this.x(value)
      frame.append(svg('line', { class: 'grid', x1: x, x2: x, y1: MARGIN.top, y2: bottom }), text(x, bottom + 18, 'middle', String(value)))
    }
    frame.append(text(width / 2, height - 6, 'middle', axis.title + (axis.log ? ' (log scale)' : ''), { class: 'title' }))
    return frame
  }

  /** A staircase: between two of its points nothing was measured. */
  front(points) {
    const steps = points.map(({ at: [x, y] }, i) => (i ? `H${x}V${y}` : `M${x} ${y}`)).join('')
    return svg('path', { class: 'front', d: steps, 'aria-hidden': 'true' })
  }

  series(points) {
    const found = new Map()
    for (const point of points) found.set(point.pruner, [...(found.get(point.pruner) ?? []), point])
    return [...found.values()].map((series) => series.sort((a, b) => a.at[0] - b.at[0]))
  }

  curves(points) {
    return this.series(points).map((series) =>
      svg('polyline', { class: `curve ${colour(series[0].pruner)}`, points: series.map((point) => point.at.join()).join(' ') }),
    )
  }

  /** Name each pruner at its dearest point; names that would overlap move down, with a line to where they belong. */
  names(points, width, height) {
    const placed = []
    for (const end of this.series(points).map((series) => series.at(-1)).sort((a, b) => a.at[1] - b.at[1])) {
      const [x, top] = end.at
      const words = end.label.length > 24 ? `${end.label.slice(0, 23)}…` : end.label
      const size = 7.5 * words.length + 30
      const flipped = x + size > width
      const column = placed.find((other) => Math.abs(other.x - x) < 2 * NEAR)?.x ?? x // names of one budget stand below each other
      let y = flipped ? top + 20 : top
      const inTheWay = () => placed.find((other) => Math.abs(other.y - y) < NAME_HEIGHT - 0.01 && Math.abs(other.x - x) < size)
      while (!flipped && inTheWay()) y = inTheWay().y + NAME_HEIGHT
      if (!flipped) y = Math.min(y, height - MARGIN.bottom - 6)
      placed.push({ x: column, y })
      const group = svg('g', { class: 'name', 'aria-hidden': 'true' })
      if (!flipped) group.append(svg('polyline', { class: `leader ${colour(end.pruner)}`, points: `${x + 7},${top} ${column + 20},${y} ${column + 24},${y}` }))
      group.append(svg('text', flipped ? { x: x + 6, y, 'text-anchor': 'end' } : { x: column + 28, y: y + 4 }, words))
      end.name = group
    }
    return this.series(points).map((series) => series.at(-1).name)
  }

  markers(points, axis) {
    const ordered = [...points].sort((a, b) => a.at[0] - b.at[0] || a.at[1] - b.at[1])
    return ordered.map((point, i) => {
      const words = this.words(point, axis).join(', ')
      const group = svg('g', {
        class: `point${point.partial ? ' partial' : ''}`,
        transform: `translate(${point.at[0]} ${point.at[1]})`,
        tabindex: i ? -1 : 0,
        role: 'img',
        'aria-label': words,
      })
      group.append(svg('circle', { class: 'target', r: 12 }), ...this.errorBar(point), marker(point.pruner))
      const show = () => this.showTip(point, ordered, axis)
      group.addEventListener('focus', show)
      group.addEventListener('pointerenter', show)
      group.addEventListener('blur', () => this.hideTip())
      group.addEventListener('pointerleave', () => this.hideTip())
      return group
    })
  }

  errorBar(point) {
    if (!point.interval) return []
    const [y2, y1] = point.interval.map((value) => this.y(value) - point.at[1])
    return [svg('line', { class: `error ${colour(point.pruner)}`, x1: 0, x2: 0, y1, y2 })]
  }

  words(point, axis) {
    const interval = point.interval ? [`95 % interval ${point.intervalText}`] : []
    const facts = [point.label, point.budget, `Avg ${point.yText}`, ...interval, point.xText[axis.key]]
    return point.partial ? [...facts, `only ${point.partial} benchmarks: not on the front`] : facts
  }

  /** Say what lies under a point: several rows may. */
  showTip(point, points, axis) {
    const near = points.filter((other) => Math.hypot(other.at[0] - point.at[0], other.at[1] - point.at[1]) < NEAR)
    const lines = [point, ...near.filter((other) => other !== point)].map((one) => {
      const [name, ...facts] = this.words(one, axis)
      return html('p', {}, html('strong', {}, html('bdi', {}, name)), html('span', {}, facts.join(' · ')))
    })
    this.tip.replaceChildren(...lines)
    this.tip.hidden = false
    const room = this.svg.parentElement.clientWidth - this.tip.offsetWidth
    this.tip.style.left = `${Math.max(0, Math.min(room, point.at[0] - this.tip.offsetWidth / 2))}px`
    const above = point.at[1] - this.tip.offsetHeight - 12
    this.tip.style.top = `${above < 0 ? point.at[1] + 14 : above}px`
  }

  hideTip() {
    this.tip.hidden = true
  }

  move(event) {
    const points = findAll(this.svg, '.point')
    const at = points.indexOf(document.activeElement)
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: points.length - 1 }[event.key]
    if (event.key === 'Escape') this.hideTip()
    if (at < 0 || to === undefined) return
    event.preventDefault()
    const next = points[Math.max(0, Math.min(points.length - 1, to))]
    points[at].setAttribute('tabindex', -1)
    next.setAttribute('tabindex', 0)
    next.focus()
  }
}
