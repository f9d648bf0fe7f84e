find(document, '#theme').addEventListener('change', ({ target }) => {
  document.documentElement.dataset.theme = target.value
})

for (const place of findAll(document, '.marker')) {
  const svg = find(document, 'svg.plot').cloneNode(false)
  for (const name of ['class', 'role', 'aria-label']) svg.removeAttribute(name)
  svg.setAttribute('viewBox', '-8 -8 16 16')
  svg.setAttribute('aria-hidden', 'true')
  svg.append(marker(svg, Number(place.dataset.style)))
  place.append(svg)
}

for (const part of findAll(document, 'section.part')) {
  const { axes, points, samples } = JSON.parse(find(part, 'script.data').textContent)
  const chart = new Chart(part, axes, points)
  new Scores(part, (rows) => chart.show(rows))
  new Samples(part, samples.benchmarks)
}

document.documentElement.classList.add('scripted')
