const PAGE_SIZE = 20

/** A question with answers to it: facts, `broken`, `mended` or nothing, the prompt, `[name, answer, score]` of each, pictures. */
function questionCard(facts, verdict, prompt, answers, figures) {
  const text = (value) => html('span', { class: 'text', dir: 'auto' }, value === '' ? '(empty)' : value)
  const scored = (value) => (value === null || value === undefined ? [] : [html('span', { class: 'score' }, `score ${Number(value.toFixed(3))}`)])
  const field = ([name, value, score]) => html('div', {}, html('dt', {}, name), html('dd', {}, text(value), ...scored(score)))
  const head = html('p', { class: 'head' }, html('bdi', {}, facts.filter(Boolean).join(' · ')))
  if (verdict) head.prepend(html('strong', { class: `verdict ${verdict}` }, verdict === 'broken' ? '✗ broken' : '✓ mended'))
  return html('li', {}, head, html('p', { class: 'prompt text', dir: 'auto' }, prompt), html('dl', {}, ...answers.map(field)), ...figures)
}

/** Browser of one table's samples: a pruned cell beside vanilla. */
class Samples {
  constructor(part, benchmarks, gallery) {
    this.part = part
    this.benchmarks = benchmarks
    this.gallery = gallery
    this.page = 0
    this.list = find(part, '.samples')
    const control = (name) => find(part, `.controls .${name}`)
    this.controls = Object.fromEntries(['benchmark', 'cell', 'verdict', 'search'].map((name) => [name, control(name)]))
    if (!benchmarks.length) return
    find(part, '.nothing').remove()
    find(part, '.controls').hidden = false
    this.controls.benchmark.append(...benchmarks.map((benchmark, i) => option(benchmark.label, i)))
    this.controls.benchmark.addEventListener('change', () => this.fillCells(this.row()))
    for (const name of ['cell', 'verdict']) this.controls[name].addEventListener('change', () => this.turn(0))
    this.controls.search.addEventListener('input', () => this.turn(0))
    find(part, '.previous').addEventListener('click', () => this.turn(this.page - 1))
    find(part, '.next').addEventListener('click', () => this.turn(this.page + 1))
    const pictured = benchmarks.some(({ cells }) => cells.some(({ rows }) => rows.some(([, , , , , kept]) => kept.length)))
    find(this.controls.verdict, '[value=pictured]').hidden = !pictured
    this.fillCells()
    this.offerRows()
  }

  /** Reveal, in the table, the buttons of rows that have samples. */
  offerRows() {
    const rows = new Set(this.benchmarks.flatMap((benchmark) => benchmark.cells.map((cell) => cell.row)))
    for (const button of findAll(this.part, 'button.browse')) {
      button.hidden = !rows.has(button.dataset.row)
      button.addEventListener('click', () => this.open(button.dataset.row))
    }
  }

  open(row) {
    if (!this.benchmark().cells.some((cell) => cell.row === row)) {
      this.controls.benchmark.value = this.benchmarks.findIndex((benchmark) => benchmark.cells.some((cell) => cell.row === row))
    }
    this.fillCells(row)
    find(this.part, '.browser h2').focus()
  }

  benchmark() {
    return this.benchmarks[this.controls.benchmark.value]
  }

  cell() {
    return this.benchmark().cells[this.controls.cell.value]
  }

  row() {
    return this.shownRow
  }

  fillCells(row) {
    const { cells } = this.benchmark()
    const several = (cell) => cells.filter((other) => other.row === cell.row).length > 1
    const seed = (cell) => (several(cell) ? ` · seed ${cell.seed}` : '')
    this.controls.cell.replaceChildren(...cells.map((cell, i) => option(`${this.nameOf(cell)}${seed(cell)}`, i)))
    this.controls.cell.value = Math.max(0, cells.findIndex((cell) => cell.row === row))
    this.turn(0)
  }

  nameOf(cell) {
    const line = document.getElementById(cell.row)
    return `${find(line, 'th bdi').textContent} · ${find(line, '.budget').textContent}`
  }

  matching() {
    const { questions } = this.benchmark()
    const wanted = this.controls.verdict.value
    const words = this.controls.search.value.trim().toLowerCase()
    const wants = {
      '': () => true,
      other: ({ question, answer }) => question[5] !== null && answer !== question[5],
      pictured: ({ kept }) => kept.length,
      broken: ({ verdict }) => verdict === 'broken',
      mended: ({ verdict }) => verdict === 'mended',
    }[wanted]
    return this.cell().rows.filter(([number, answer, , , verdict, kept]) => {
      const question = questions[number]
      if (!wants({ question, answer, verdict, kept })) return false
      return !words || [...question.slice(0, 6), answer].some((text) => text?.toLowerCase().includes(words))
    })
  }

  turn(page) {
    const cell = this.cell()
    const rows = this.matching()
    const pages = Math.max(1, Math.ceil(rows.length / PAGE_SIZE))
    this.shownRow = cell.row
    this.page = Math.max(0, Math.min(pages - 1, page))
    const start = this.page * PAGE_SIZE
    this.list.replaceChildren(...rows.slice(start, start + PAGE_SIZE).map((row) => this.card(row)))
    this.list.start = start + 1
    const part = cell.rows.length < cell.n ? ` This page holds ${cell.rows.length} of its ${cell.n} samples, broken and mended ones first.` : ''
    const flips = cell.compared
      ? `Of ${cell.compared} samples that were scored with and without the pruner, it broke ${cell.broken} and mended ${cell.mended}.`
      : 'Its samples have no scores to compare with vanilla.'
    find(this.part, '.facts').textContent = `${flips}${part} ${rows.length} ${rows.length === 1 ? 'matches' : 'match'}.`
    find(this.part, '.pager').hidden = pages < 2
    find(this.part, '.page').textContent = `Page ${this.page + 1} of ${pages}`
    find(this.part, '.previous').disabled = this.page === 0
    find(this.part, '.next').disabled = this.page === pages - 1
  }

  card([number, answer, score, tokens, verdict, kept]) {
    const [sample, image, category, prompt, target, before, beforeScore] = this.benchmark().questions[number]
    const facts = [`Sample ${sample}`, category && `category ${category}`, image && `image ${image}`, tokens === null ? '' : `${Number(tokens.toFixed(1))} tokens`]
    const vanilla = before === null ? ['Vanilla', 'no answer here'] : ['Vanilla', before, beforeScore]
    const figures = kept.length ? [html('div', { class: 'kept' }, ...this.gallery.figures(kept))] : []
    return questionCard(facts, verdict, prompt, [['Target', target], vanilla, [this.pruner(), answer, score]], figures)
  }

  pruner() {
    return find(document.getElementById(this.shownRow), 'th bdi').textContent
  }
}
