const AT_ONCE = 10

/** Any two rows of a table against each other: differences by benchmark, and questions on which they disagree. */
class Comparison {
  constructor(part, { rows, columns, falling, pairs }, benchmarks, gallery) {
    this.part = find(part, '.compare')
    if (rows.length < 2) return
    Object.assign(this, { rows, columns, falling, pairs, benchmarks, gallery })
    this.part.hidden = false
    this.controls = Object.fromEntries(['one', 'other', 'kind'].map((name) => [name, find(this.part, `.${name}`)]))
    for (const [name, chosen] of [['one', 1], ['other', 0]]) {
      this.controls[name].append(...rows.map(([, label], i) => option(label, i)))
      this.controls[name].value = chosen
    }
    for (const control of Object.values(this.controls)) control.addEventListener('change', () => this.show())
    find(this.part, '.more').addEventListener('click', () => this.list(this.shown + AT_ONCE))
    this.show()
  }

  /** Numbers of the two rows by column, Avg last; null where the page has none. */
  pair() {
    const [i, j] = this.chosen()
    if (i < j) return this.pairs[`${i} ${j}`] ?? null
    const turned = ([gap, low, high, broken, mended, n]) => [...[gap, high, low].map((x) => (x === null ? x : -x)), mended, broken, n]
    return this.pairs[`${j} ${i}`]?.map(turned) ?? null
  }

  chosen() {
    return [Number(this.controls.one.value), Number(this.controls.other.value)]
  }

  names() {
    return this.chosen().map((i) => this.rows[i][1])
  }

  show() {
    const [one, other] = this.names()
    const pair = this.pair()
    const same = this.controls.one.value === this.controls.other.value
    const signed = (value) => (value === null ? '-' : `${value > 0 ? '+' : ''}${value.toFixed(1)}`)
    const line = ([gap, low, high, broken, mended, n], i) => [
      this.columns[i] ?? 'Avg', signed(gap), low === null ? '-' : `${signed(low)} to ${signed(high)}`, broken, mended, n,
    ]
    const cells = ([name, ...values]) => html('tr', {}, html('th', { scope: 'row' }, name), ...values.map((value) => html('td', {}, `${value}`)))
    find(this.part, 'tbody').replaceChildren(...(pair ?? []).map((numbers, i) => cells(line(numbers, i))))
    find(this.part, '.scroll').hidden = !pair
    const none = same ? 'Choose two different rows.' : 'This page holds no comparison of rows at different budgets; choose two of one budget.'
    const counted = pair && `${one} has ${pair.at(-1)[3]} questions wrong that ${other} has right (broken), and ${pair.at(-1)[4]} the other way round (mended).`
    this.found = pair ? this.disagreements() : []
    const held = this.found.length === 1 ? 'This page holds 1 of them' : `This page holds ${this.found.length} of them`
    find(this.part, '.facts').textContent = pair ? `${counted} ${held}.` : none
    this.list(AT_ONCE)
  }

  list(most) {
    const kind = this.controls.kind.value
    const found = this.found.filter((one) => !kind || one.kind === kind)
    this.shown = most
    find(this.part, '.pairs').replaceChildren(...found.slice(0, most).map((one) => this.card(one)))
    find(this.part, '.more').hidden = found.length <= most
  }

  disagreements() {
    return this.benchmarks.flatMap(({ label, cells, questions }) => {
      const right = (score) => (this.falling.includes(label) ? score <= 0.5 : score >= 0.5)
      const [mine, theirs] = this.chosen().map((i) => this.answers(this.rows[i][0], cells, questions))
      return [...mine].flatMap(([number, one]) => {
        const other = theirs.get(number)
        if (!other || one.score === null || other.score === null || right(one.score) === right(other.score)) return []
        return [{ label, question: questions[number], one, other, kind: right(one.score) ? 'mended' : 'broken' }]
      })
    })
  }

  /** Answers of a row that the page holds, by question; vanilla's stand beside the questions. */
  answers(row, cells, questions) {
    const cell = cells.find((own) => own.row === row)
    if (cell) return new Map(cell.rows.map(([number, answer, score, , , kept]) => [number, { answer, score, kept }]))
    const vanilla = find(document.getElementById(row), '.marker').dataset.style === '-1'
    if (!vanilla) return new Map()
    return new Map(questions.map(([, , , , , answer, score], number) => [number, { answer, score, kept: [] }]))
  }

  card({ label, question, one, other, kind }) {
    const [sample, image, category, prompt, target] = question
    const [name, against] = this.names()
    const facts = [label, `sample ${sample}`, category && `category ${category}`, image && `image ${image}`]
    const kept = [[name, one], [against, other]].filter(([, { kept: own }]) => own.length)
    return questionCard(facts, kind, prompt, [['Target', target], [name, one.answer, one.score], [against, other.answer, other.score]], [
      ...kept.map(([whose, { kept: own }]) => html('div', { class: 'kept' }, html('p', { class: 'whose' }, whose), ...this.gallery.figures(own))),
    ])
  }
}
