for (const th of document.querySelectorAll("table.wide thead th")) th.onclick = () => {
  const table = th.closest("table"), i = th.cellIndex;
  const sign = th.ariaSort === "ascending" ? -1 : 1;
  const value = (row) => {
    const text = row.cells[i].dataset.value ?? row.cells[i].textContent;
    const number = parseFloat(text);
    return isNaN(number) ? [1, text] : [0, number];
  };
  const rows = [...table.querySelectorAll("tbody tr:not(.group)")];
  rows.sort((a, b) => {
    const [s, x] = value(a), [t, y] = value(b);
    return s - t || sign * ((x > y) - (x < y));
  });
  for (const group of table.querySelectorAll(".group")) group.remove();
  table.tBodies[0].append(...rows);
  for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
  th.ariaSort = sign > 0 ? "ascending" : "descending";
};
// "ast" evaluates expressions without eval, which the page's policy forbids.
const options = {ast: true, renderer: "svg", actions: false};
for (const element of document.querySelectorAll("script.spec"))
  vegaEmbed(`#${element.dataset.chart}`, JSON.parse(element.textContent), options);
