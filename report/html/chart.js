const ROOM_FOR_NAMES = 560 // narrower charts have their names below

/**
 * Points, joined for each pruner and named, drawn anew for every width, filter and choice.
 *
 * A subclass says what they stand for: `read` gives a point's `x`, `y`, `interval` and `facts` under a choice, or null where
 * they are not known; `limits` gives the ends of both axes; `reason` says why a point is not drawn; `meant` leaves out points that
 * a choice is not about.
 */
class Chart {
  constructor(figure, choices, points) {
    this.figure = figure
    this.svg = find(figure, 'svg')
    this.tip = find(figure, '.tip')
    this.points = points
    this.choices = choices
    this.shown = new Set()
    this.select = find(figure, 'select')
    this.select.append(...choices.map((choice) => option(choice.label, choice.key)))
    this.select.parentElement.hidden = choices.length < 2
    this.select.addEventListener('change', () => this.draw())
    this.svg.addEventListener('keydown', (event) => this.move(event))
    const canvas = this.svg.parentElement
    this.legend = html('ul', { class: 'legend', 'aria-hidden': 'true' })
    canvas.after(this.legend)
    new ResizeObserver(() => canvas.clientWidth !== this.width && this.draw()).observe(canvas)
  }

  show(rows) {
    this.shown = rows
    this.draw()
  }

  draw() {
    const width = this.svg.parentElement.clientWidth
    const choice = this.choices.find((one) => one.key === this.select.value)
    if (!choice || !width) return
    this.tell(choice)
    this.width = width
    const height = Math.round(Math.min(460, Math.max(300, width * 0.52)))
    this.hideTip()
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
    this.svg.setAttribute('height', height)
    const known = this.meant(choice).flatMap((point) => this.read(point, choice) ?? [])
    const points = known.filter((point) => this.shown.has(point.row))
    this.scale(points.length ? points : known, known, choice, height)
    const places = points.map((point) => ({ ...point, at: this.place(point) }))
    sideBySide(places)
    const complete = places.filter((point) => !point.partial)
    this.svg.replaceChildren(
      this.frame(choice, height),
      ...this.behind(complete),
      ...this.curves(complete),
      ...(width < ROOM_FOR_NAMES ? [] : this.names(places)),
      ...this.markers(places),
    )
    this.nameBelow(width < ROOM_FOR_NAMES ? places : [])
  }

  /** Name the pruners below a chart that has no room for names, the highest first. */
  nameBelow(points) {
    const ends = this.series(points).map((series) => series.at(-1)).sort((a, b) => a.at[1] - b.at[1])
    const item = ({ pruner, label }) => {
      const picture = svg('svg', { viewBox: '-8 -8 16 16' })
      picture.append(marker(pruner))
      return html('li', {}, html('span', { class: 'marker' }, picture), html('bdi', {}, shortened(label)))
    }
    this.legend.replaceChildren(...ends.map(item))
  }

  /** Points that a choice is about. */
  meant() {
    return this.points
  }

  /** Say which of the rows shown are not drawn. */
  tell(choice) {
    const missing = find(this.figure, '.missing')
    const rows = this.meant(choice).filter((point) => this.shown.has(point.row) && !this.read(point, choice))
    missing.textContent = `Not drawn, since ${this.reason}: ${rows.map((point) => `${point.label}, ${point.budget}`).join('; ')}.`
    missing.hidden = !rows.length
  }

  margins() {
    return { left: 52, right: 18, top: 14, bottom: 46 }
  }

  scale(points, known, choice, height) {
    const margin = this.margins(known)
    const warp = choice.log ? Math.log : (value) => value
    const { domain, range } = this.limits(points, known, choice)
    this.edges = { left: margin.left, right: this.width - margin.right, top: margin.top, bottom: height - margin.bottom }
    const across = (this.edges.right - this.edges.left) / (warp(domain[1]) - warp(domain[0]))
    const up = (this.edges.bottom - this.edges.top) / (range[1] - range[0])
    this.x = (value) => this.edges.left + across * (warp(value) - warp(domain[0]))
    this.y = (value) => this.edges.bottom - up * (value - range[0])
    this.domain = domain
    this.range = range
  }

  place(point) {
    return [this.x(point.x), this.y(point.y)]
  }

  frame(choice, height) {
    const { left, right, top, bottom } = this.edges
    const frame = svg('g', { class: 'frame', 'aria-hidden': 'true' })
    for (const value of ticks(...this.range, 6)) {
      const y = this.y(value)
      const { words, kind } = this.level(value)
      frame.append(svg('line', { class: kind, x1: left, x2: right, y1: y, y2: y }), this.text(left - 8, y + 4, 'end', words))
    }
    for (const value of choice.log ? logTicks(...this.domain) : ticks(...this.domain, (right - left) / 90)) {
      const x = this.x(value)
      frame.append(svg('line', { class: 'grid', x1: x, x2: x, y1: top, y2: bottom }), this.text(x, bottom + 18, 'middle', String(value)))
    }
    frame.append(this.text((left + right) / 2, height - 6, 'middle', this.title(choice)))
    return frame
  }

  text(x, y, anchor, words) {
    return svg('text', { x, y, 'text-anchor': anchor }, words)
  }

  /** Words for a line across, and its kind. */
  level(value) {
    return { words: String(value), kind: 'grid' }
  }

  behind() {
    return []
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

  /** Name each pruner at its last point, with a line to it where names that would overlap are moved. */
  names(points) {
    const names = []
    for (const end of this.series(points).map((series) => series.at(-1)).sort((a, b) => a.at[1] - b.at[1])) {
      const [x, y] = end.at
      const size = roomFor(end.label)
      const flipped = x + size > this.width
      const column = names.find((other) => Math.abs(other.end.home - end.home) < 2 * NEAR)?.column ?? x // names of one budget stand below each other
      names.push({ end, flipped, column, size, left: flipped ? x - size : column, y: flipped ? y + 20 : y })
    }
    const [fixed, free] = [true, false].map((flipped) => names.filter((name) => name.flipped === flipped))
    moveApart(free, fixed, NAME_HEIGHT)
    for (const name of free) name.y = Math.min(name.y, this.edges.bottom - 6)
    moveApart(free.reverse(), fixed, -NAME_HEIGHT) // those that the bottom stopped push the others up
    return names.map((name) => this.name(name))
  }

  name({ end, flipped, column, y }) {
    const [x, top] = end.at
    const group = svg('g', { class: 'name', 'aria-hidden': 'true' })
    if (!flipped) group.append(svg('polyline', { class: `leader ${colour(end.pruner)}`, points: `${x + 7},${top} ${column + 20},${y} ${column + 24},${y}` }))
    group.append(flipped ? this.text(x + 6, y, 'end', shortened(end.label)) : this.text(column + 28, y + 4, 'start', shortened(end.label)))
    return group
  }

  ordered(points) {
    return [...points].sort((a, b) => a.at[0] - b.at[0] || a.at[1] - b.at[1])
  }

  markers(points) {
    const ordered = this.ordered(points)
    return ordered.map((point, i) => {
      const group = svg('g', {
        class: `point${point.partial ? ' partial' : ''}`,
        transform: `translate(${point.at[0]} ${point.at[1]})`,
        tabindex: i ? -1 : 0,
        role: 'img',
        'aria-label': [point.label, ...point.facts].join(', '),
      })
      group.append(svg('circle', { class: 'target', r: 12 }), ...this.picture(point))
      const show = () => this.showTip(point, ordered)
      group.addEventListener('focus', show)
      group.addEventListener('pointerenter', show)
      group.addEventListener('blur', () => this.hideTip())
      group.addEventListener('pointerleave', () => this.hideTip())
      return group
    })
  }

  /** What stands at a point. */
  picture(point) {
    return [...this.errorBar(point), marker(point.pruner)]
  }

  errorBar(point) {
    if (!point.interval) return []
    const [y2, y1] = point.interval.map((value) => this.y(value) - point.at[1])
    return [svg('line', { class: `error ${colour(point.pruner)}`, x1: 0, x2: 0, y1, y2 })]
  }

  /** Say what lies under a point: several rows may. */
  showTip(point, points) {
    const near = points.filter((other) => Math.hypot(other.home - point.home, other.at[1] - point.at[1]) < NEAR)
    const lines = [point, ...near.filter((other) => other !== point)].map(({ label, facts }) =>
      html('p', {}, html('strong', {}, html('bdi', {}, label)), html('span', {}, facts.join(' · '))),
    )
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
