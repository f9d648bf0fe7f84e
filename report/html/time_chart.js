/** Time against the tokens that are left; vanilla, which has many more of them, is a line across with a band for its quartiles. */
class TimeChart extends Chart {
  reason = 'they could not be measured'

  read(point, choice) {
    const reading = point.y[choice.key]
    if (!reading) return null
    return { ...point, y: reading.value, interval: reading.interval, facts: [point.budget, reading.text, point.xText] }
  }

  /** Names stand right of the frame. */
  margins(known) {
    const right = this.width < ROOM_FOR_NAMES ? 18 : Math.max(...known.map((point) => roomFor(point.label)))
    return { ...super.margins(), left: 64, top: 34, right }
  }

  /** Both axes begin at nothing; that of tokens stays as it is whatever is shown. */
  limits(points, known) {
    const most = Math.max(...known.filter((point) => point.pruner >= 0).map((point) => point.x)) || 1
    const high = Math.max(...points.flatMap((point) => [point.y, ...(point.interval ?? [])])) || 1
    return { domain: [-0.05 * most, 1.1 * most], range: [0, 1.04 * high] }
  }

  place(point) {
    return point.pruner < 0 ? [this.edges.right, this.y(point.y)] : super.place(point)
  }

  title() {
    return 'Observed vision tokens per decoder layer'
  }

  frame(choice, height) {
    const frame = super.frame(choice, height)
    frame.append(this.text(4, 16, 'start', choice.label))
    return frame
  }

  /** Vanilla first, for the keyboard, and below the others. */
  ordered(points) {
    return super.ordered(points).sort((a, b) => (a.pruner >= 0) - (b.pruner >= 0))
  }

  picture(point) {
    if (point.pruner >= 0) return super.picture(point)
    const line = { x1: this.edges.left - this.edges.right, x2: 0 }
    const [high, low] = (point.interval ?? [point.y, point.y]).map((value) => this.y(value) - point.at[1]).sort((a, b) => a - b)
    return [
      svg('rect', { class: 'band', x: line.x1, y: high, width: line.x2 - line.x1, height: low - high }),
      svg('line', { class: 'hundred', ...line }),
      svg('line', { class: 'reach', ...line }),
    ]
  }
}
