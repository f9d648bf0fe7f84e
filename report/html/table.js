/** Sorting of a table by its headings; `changed` is called when the order may be another. */
class Sorting {
  constructor(table, changed) {
    this.changed = changed
    this.rows = findAll(table, 'tr.row').map((element) => ({
      element,
      home: element.parentElement,
      keys: findAll(element, '[data-key]').map((cell) => cell.dataset.key),
    }))
    this.heads = findAll(table, 'thead th[aria-sort]')
    this.sorted = { column: -1, direction: 'none' }
    this.heads.forEach((head, column) => find(head, 'button').addEventListener('click', () => this.sort(column)))
  }

  /** Best first, then worst first, then as it was; text begins with A. */
  sort(column) {
    const first = this.heads[column].dataset.first
    const order = [first, first === 'ascending' ? 'descending' : 'ascending', 'none']
    const at = this.sorted.column === column ? order.indexOf(this.sorted.direction) : -1
    this.sorted = { column, direction: order[(at + 1) % order.length] }
    this.heads.forEach((head, i) => head.setAttribute('aria-sort', i === column ? this.sorted.direction : 'none'))
    this.changed()
  }

  ordered() {
    const { column, direction } = this.sorted
    if (direction === 'none') return this.rows
    const sign = direction === 'ascending' ? 1 : -1
    const compare = column === 0 ? (a, b) => a.localeCompare(b) : (a, b) => Number(a) - Number(b)
    return [...this.rows].sort((a, b) => {
      const [left, right] = [a.keys[column], b.keys[column]]
      if (left === '' || right === '') return (left === '') - (right === '') // what has no number stays last
      return sign * compare(left, right)
    })
  }
}

/** A table that the boxes above it filter and its headings sort; `changed` is told which rows are shown. */
class Rows {
  constructor(part, changed) {
    this.part = part
    this.changed = changed
    this.table = find(part, 'table.scores')
    this.sorting = new Sorting(this.table, () => this.show())
    this.boxes = findAll(part, '.filters input')
    for (const box of this.boxes) box.addEventListener('change', () => this.show())
    find(part, '.all').addEventListener('click', () => {
      for (const box of this.boxes) box.checked = true
      this.show()
    })
  }

  chosen(name) {
    return new Set(this.boxes.filter((box) => box.checked && name in box.dataset).map((box) => box.dataset[name]))
  }

  show() {
    const pruners = this.chosen('pruner')
    for (const { element, home } of this.sorting.ordered()) {
      home.append(element)
      element.hidden = !pruners.has(element.dataset.pruner)
    }
    this.tell()
  }

  tell() {
    const { rows } = this.sorting
    const shown = rows.filter((row) => !row.element.hidden)
    find(this.part, '.count').textContent = `${shown.length} of ${rows.length} rows shown`
    this.changed(new Set(shown.map((row) => row.element.id)))
  }
}

/** The scores, with a body for each budget that can be joined into one. */
class Scores extends Rows {
  constructor(part, changed) {
    super(part, changed)
    this.bodies = findAll(this.table, 'tbody')
    this.flat = this.table.appendChild(html('tbody', {}))
    this.grouped = find(part, 'input.grouped')
    this.grouped.addEventListener('change', () => this.show())
  }

  show() {
    const [pruners, budgets] = [this.chosen('pruner'), this.chosen('budget')]
    const apart = this.grouped.checked
    this.table.classList.toggle('grouped', apart)
    for (const row of this.sorting.ordered()) {
      const target = apart ? row.home : this.flat
      target.append(row.element)
      row.element.hidden = !pruners.has(row.element.dataset.pruner) || !budgets.has(row.home.dataset.budget)
    }
    for (const body of this.bodies) body.hidden = !apart || !find(body, 'tr.row:not([hidden])')
    this.tell()
  }
}

/** Put Avg beside the names where the screen is narrow, elsewhere behind the benchmarks. */
function placeAverages(part) {
  const narrow = matchMedia('(max-width: 40rem)')
  const place = () => {
    for (const row of findAll(part, 'table.scores tr:has(.avg)')) {
      row.insertBefore(find(row, '.avg'), narrow.matches ? find(row, '.budget').nextSibling : find(row, '.count-of'))
    }
  }
  narrow.addEventListener('change', place)
  place()
}
