/** Points that nothing beats: whatever costs no more is less accurate. */
function paretoFront(points) {
  const front = []
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (!front.length || point.y > front.at(-1).y) front.push(point)
  }
  return front
}

/** Accuracy against a cost, which the reader chooses. */
class AccuracyChart extends Chart {
  reason = 'their cost is not known'

  read(point, axis) {
    const x = point.x[axis.key]
    if (x === null) return null
    const interval = point.interval ? [`95 % interval ${point.intervalText}`] : []
    const partial = point.partial ? [`only ${point.partial} benchmarks: not on the front`] : []
    return { ...point, x, facts: [point.budget, `Avg ${point.yText}`, ...interval, point.xText[axis.key], ...partial] }
  }

  /** Say where the cost comes from, too. */
  tell(axis) {
    super.tell(axis)
    const source = find(this.figure, '.source')
    source.textContent = `Cost as profiled: ${axis.source}.`
    source.hidden = !axis.source
  }

  limits(points, _, axis) {
    const xs = points.map((point) => point.x)
    const ys = points.flatMap((point) => [point.y, ...(point.interval ?? [])])
    const pad = axis.log ? 1.12 : 1.04
    const spread = Math.max(Math.max(...ys, 100) - Math.min(...ys), 5)
    return {
      domain: axis.log ? [Math.min(...xs) / pad, Math.max(...xs) * pad] : [0, Math.max(...xs) * pad],
      range: [Math.max(0, Math.min(...ys) - 0.08 * spread), Math.max(...ys, 100) + 0.04 * spread],
    }
  }

  title(axis) {
    return axis.title + (axis.log ? ' (log scale)' : '')
  }

  level(value) {
    return { words: `${value} %`, kind: value === 100 ? 'hundred' : 'grid' }
  }

  /** The front as a staircase: between two of its points nothing was measured. */
  behind(points) {
    const steps = paretoFront(points).map(({ at: [x, y] }, i) => (i ? `H${x}V${y}` : `M${x} ${y}`)).join('')
    return [svg('path', { class: 'front', d: steps, 'aria-hidden': 'true' })]
  }
}
