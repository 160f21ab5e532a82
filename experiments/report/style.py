"""The page's stylesheet, and the script that sorts its table."""

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5c6570;--line:#d9dde2;
--paper:#fff;--card:#f4f6f8;--drift:#a63a00}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--soft:#9aa4af;--line:#343b44;
--paper:#171717;--card:#232425;--drift:#ff9e64}
figure img{filter:invert(.91) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:1120px;color:var(--ink);
background:var(--paper);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 0}h2{margin:2.5rem 0 .6rem}
h2{font-size:1.25rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
p,li,dd,figcaption{max-width:72ch}.soft,figcaption,dd{color:var(--soft)}
.card{background:var(--card);border-radius:8px;padding:.8rem 1.2rem}
.card li{margin:.5rem 0;max-width:100ch}ol.card{padding-left:2.4rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.6rem}
.tiles div{background:var(--card);border-radius:8px;padding:.6rem .9rem}
.tiles b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}figure{margin:0 0 2.5rem}
figcaption{margin:.4rem 0 0}
img{display:block;width:100%;height:auto}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
.wide{width:100%}
.wide td:first-child{position:sticky;left:0;background:var(--paper)}
th,td{padding:.2rem .45rem;text-align:right;white-space:nowrap}
.wide thead th{white-space:normal}
th{border-bottom:2px solid var(--line);vertical-align:bottom;font-weight:600}
td{border-bottom:1px solid var(--line)}
.text{text-align:left}.group th{text-align:left;padding-top:1rem}
th button{all:unset;cursor:pointer}th button:focus-visible{outline:2px solid}
th[aria-sort=ascending] button:after{content:" \\2191"}
th[aria-sort=descending] button:after{content:" \\2193"}
.within .judged{color:var(--soft)}.drift .judged{color:var(--drift);font-weight:600}
.collapsed td{font-style:italic;color:var(--soft)}
pre{overflow-x:auto;padding:.8rem 1rem;background:var(--card);border-radius:8px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}summary{cursor:pointer}
@media(max-width:600px){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}}
"""

SORT = """
for (const th of document.querySelectorAll("table.wide thead th")) th.onclick = () => {
  const table = th.closest("table"), i = th.cellIndex;
  const sign = th.ariaSort === "ascending" ? -1 : 1;
  const value = (row) => {
    const text = row.cells[i].textContent, number = parseFloat(text);
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
"""
