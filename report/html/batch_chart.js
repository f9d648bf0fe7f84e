/** What is answered each second, or how soon, against the prompts at once; a choice is of a quantity and of a budget. */
class BatchChart extends Chart {
  reason = 'they could not be measured'

  meant(choice) {
    return this.points.filter((point) => point.pruner < 0 || point.budget === choice.budget)
  }

  read(point, choice) {
    const reading = point.y[choice.quantity]
    return reading && { ...point, y: reading.value, interval: reading.interval, facts: [point.budget, reading.text, `batch ${point.x}`] }
  }

  margins(known) {
    const right = this.width < ROOM_FOR_NAMES ? 18 : Math.max(...known.map((point) => roomFor(point.label)))
    return { ...super.margins(), left: 64, top: 34, right }
  }

  limits(points, known) {
    const batches = known.map((point) => point.x)
    const high = Math.max(...points.flatMap((point) => [point.y, ...(point.interval ?? [])])) || 1
    return { domain: [Math.min(...batches) / 1.1, Math.max(...batches) * 1.1], range: [0, 1.04 * high] }
  }

  title() {
    return 'Prompts at once'
  }

  frame(choice, height) {
    const frame = super.frame(choice, height)
    frame.append(this.text(4, 16, 'start', choice.label))
    return frame
  }
}
