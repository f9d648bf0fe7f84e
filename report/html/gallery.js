/** Pictures of kept tokens; text says what each shows. */
class Gallery {
  constructor({ pictures = {}, places = [] }) {
    this.pictures = pictures
    this.places = places
  }

  /** For each image of a sample, the picture as the tower saw it, then what is left of it at each cut. */
  figures(images) {
    return images.flatMap(([number, tokens, cuts], i) => {
      const place = this.places[number]
      const which = images.length > 1 ? `image ${i + 1} of ${images.length}, ` : ''
      return [
        this.figure(place, `${which}${tokens} vision tokens`, null),
        ...cuts.map(([layer, kept]) => this.figure(place, `${which}${layer ? `layer ${layer}` : 'before the LLM'}: ${this.count(place, tokens, kept)}`, kept)),
      ]
    })
  }

  count([, , , tiles], tokens, kept) {
    const boxes = tiles.flatMap(cells)
    const placed = kept.filter((token) => token >= 0)
    const extra = { 'on padding': placed.filter((token) => !area(boxes[token])).length, 'without a place': kept.length - placed.length }
    const words = Object.entries(extra).flatMap(([words, count]) => (count ? [`${count} ${words}`] : []))
    return [`${kept.length} of ${tokens} tokens kept`, ...words].join(', ')
  }

  /** A button, since small pictures want to be enlarged. */
  figure([picture, width, height, tiles], words, kept) {
    const image = svg('image', { href: `data:image/jpeg;base64,${this.pictures[picture]}`, width, height, preserveAspectRatio: 'none' })
    const shades = kept ? this.shades(width, height, tiles, new Set(kept)) : []
    const drawing = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': words }, image, ...shades)
    const button = html('button', { type: 'button', class: 'look', 'aria-pressed': false, title: 'Enlarge' }, drawing)
    button.addEventListener('click', () => button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') === 'false'))
    return html('figure', {}, button, html('figcaption', {}, words))
  }

  /** What the model never sees is blank, what it loses is dark, what it keeps is framed. */
  shades(width, height, tiles, kept) {
    const boxes = tiles.flatMap(cells).map((box, token) => ({ box, kept: kept.has(token) }))
    const line = 0.06 * Math.sqrt(Math.max(...tiles.flatMap(cells).map(area)))
    const path = (name, rectangles) => svg('path', { class: name, 'stroke-width': line, d: rectangles.filter(area).map(outline).join('') })
    const seen = tiles.map(([x, y]) => [x[0], y[0], x.at(-1), y.at(-1)])
    return [
      path('unseen', [[0, 0, width, height], ...seen]),
      path('dropped', boxes.filter((one) => !one.kept).map((one) => one.box)),
      path('stays', boxes.filter((one) => one.kept).map((one) => one.box)),
    ]
  }
}

/** Boxes of a tile's tokens in raster order: left, top, right, bottom. */
const cells = ([x, y]) => y.slice(1).flatMap((bottom, row) => x.slice(1).map((right, column) => [x[column], y[row], right, bottom]))
const area = ([left, top, right, bottom]) => (right - left) * (bottom - top)
const outline = ([left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`
