find(document, '#theme').addEventListener('change', ({ target }) => {
  document.documentElement.dataset.theme = target.value
})

for (const place of findAll(document, '.marker')) {
  const picture = svg('svg', { viewBox: '-8 -8 16 16', 'aria-hidden': 'true' })
  picture.append(marker(Number(place.dataset.style)))
  place.append(picture)
}

const gallery = new Gallery(JSON.parse(find(document, '#gallery')?.textContent ?? '{}'))
for (const part of findAll(document, 'section.accuracy')) {
  const { axes, points, samples, compared } = JSON.parse(find(part, 'script.data').textContent)
  const chart = new AccuracyChart(find(part, 'figure.chart'), axes, points)
  new Scores(part, (rows) => chart.show(rows)).show()
  placeAverages(part)
  if (!samples) continue // pages of a single method
  new Samples(part, samples.benchmarks, gallery)
  new Comparison(part, compared, samples.benchmarks, gallery)
}
for (const part of findAll(document, 'section.board')) {
  new Scores(part, () => {}).show()
  placeAverages(part)
}
for (const table of findAll(document, 'table.plain')) {
  const sorting = new Sorting(table, () => sorting.ordered().forEach(({ element, home }) => home.append(element)))
}
for (const part of findAll(document, 'section.speed')) {
  const { choices, points } = JSON.parse(find(part, 'script.data').textContent)
  const chart = new (part.classList.contains('batches') ? BatchChart : TimeChart)(find(part, 'figure.chart'), choices, points)
  new Rows(part, (rows) => chart.show(rows)).show()
}

document.documentElement.classList.add('scripted')
