"""The style sheet of all report pages: light and dark, wide and narrow, screen and print."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2126; --quiet: #59636e; --edge: #d4dae0; --card: #f6f8fa;
  --shade: #0b5cad1f; --link: #0b5cad; --good: #136b34; --good-back: #dff3e5; --open: #5c4a00; --open-back: #fbf0c9;
  --bad: #a11b1b; --bad-back: #fbe3e1;
  --c1: #0b5cad; --c2: #b4480a; --c3: #0a7a55; --c4: #8636b5; --c5: #5d6670; --c6: #a8184f; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --ink: #e4e8ec; --quiet: #a0abb6; --edge: #39424c;
  --card: #1b2128; --shade: #6db3f52e; --link: #7cbcff; --good: #7fdc9b; --good-back: #143521; --open: #efd67c;
  --open-back: #3a3111; --bad: #ff9f97; --bad-back: #451e1c;
  --c1: #6db3f5; --c2: #f0964f; --c3: #4fcf9f; --c4: #cd96f0; --c5: #a9b3bd; --c6: #f57fa6; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.25rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--edge); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p { margin: .5rem 0; max-width: 48rem; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.quiet, figcaption, caption { color: var(--quiet); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem;
  padding: 0; margin: 1rem 0; list-style: none; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: .6rem; padding: 1rem 1.1rem;
  min-width: 0; }
.card h3 { margin: .5rem 0 .6rem; line-height: 1.35; }
.card p { font-size: .92rem; }
.figure { font-size: 1.65rem; font-weight: 650; line-height: 1.15; font-variant-numeric: tabular-nums; }
.figure small { display: block; font-size: .88rem; font-weight: 400; color: var(--quiet); margin-top: .2rem; }
.verdict { display: inline-block; border-radius: 1rem; padding: .08rem .7rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; }
.verdict.shown { color: var(--good); background: var(--good-back); }
.verdict.not-shown { color: var(--open); background: var(--open-back); }
.verdict.contrary { color: var(--bad); background: var(--bad-back); }

.scroll { overflow-x: auto; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; min-width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .45rem; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .36rem .8rem .36rem 0; border-bottom: 1px solid var(--edge); }
th:last-child, td:last-child { padding-right: .2rem; }
thead th { vertical-align: bottom; color: var(--quiet); font-weight: 600; border-bottom-width: 2px; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; min-width: 5rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2.5rem); }
.nowrap { white-space: nowrap; }
.says { font-weight: 400; color: var(--quiet); max-width: 44rem; }
code, .hash { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .88em; }
.share { display: block; min-width: 6rem; height: .8rem; margin-top: .35rem; background: var(--shade);
  border-radius: .15rem; overflow: hidden; }
.share > span { display: block; height: 100%; background: var(--c1); }
.tint { display: block; width: 5rem; margin-left: auto; padding: 0 .3rem; border-radius: .15rem;
  background: linear-gradient(to left, var(--shade) var(--share), transparent var(--share)); }

figure { margin: 1.25rem 0; min-width: 0; }
figcaption { font-size: .92rem; margin-bottom: .5rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem; }
.plot { display: grid; grid-template: auto 17rem 1.5rem auto / 3.2rem minmax(0, 1fr); font-size: .8rem;
  color: var(--quiet); font-variant-numeric: tabular-nums; padding-right: .8rem; }
.axis-name { grid-column: 1 / -1; padding-bottom: .5rem; }
.x-name { grid-column: 2; text-align: center; padding: .1rem 0 0; }
.y-ticks, .x-ticks, .area { position: relative; }
.y-ticks span { position: absolute; right: .5rem; transform: translateY(-50%); white-space: nowrap; }
.x-ticks { grid-column: 2; }
.x-ticks span { position: absolute; top: .25rem; transform: translateX(-50%); white-space: nowrap; }
.area > svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.rule-x, .rule-y { position: absolute; padding: 0 .35rem; white-space: nowrap; }
.rule-x { top: 0; }
.rule-x.before { transform: translateX(-100%); }
.rule-y { right: 0; transform: translateY(-100%); }
svg path { fill: none; vector-effect: non-scaling-stroke; stroke: var(--look); }
svg .grid { stroke: var(--edge); stroke-width: 1; }
svg .reference { stroke: var(--quiet); stroke-width: 1.25; stroke-dasharray: 3 3; }
svg .band { fill: var(--shade); }
svg .line { stroke-width: 2; stroke-linejoin: round; stroke-dasharray: var(--dash); }
svg .bar { stroke-width: 3; opacity: .55; }
svg .dot { stroke-width: 9; stroke-linecap: round; }
svg .square { stroke-linecap: square; stroke-width: 8; }
svg .hole { stroke: var(--page); stroke-width: 5; stroke-linecap: round; }
.look1 { --look: var(--c1); } .look2 { --look: var(--c2); --dash: 7 4; } .look3 { --look: var(--c3); --dash: 2 3; }
.look4 { --look: var(--c4); --dash: 9 3 2 3; } .look5 { --look: var(--c5); --dash: 12 4; }
.look6 { --look: var(--c6); --dash: 4 2; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; margin: .4rem 0 0 3.2rem; padding: 0;
  font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .5rem; }
.key { width: 2rem; height: .8rem; flex: none; overflow: visible; }
.strip { display: block; width: 100%; min-width: 9rem; height: 1.3rem; overflow: visible; }
.card .strip { margin: .7rem 0 .2rem; }
.card .hole { stroke: var(--card); }

.dialog { border: 1px solid var(--edge); border-radius: .6rem; padding: .8rem 1rem; margin: .8rem 0; }
.dialog h3 { margin: 0 0 .3rem; }
.foreign { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .88em;
  white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5rem), 1fr)); gap: .6rem 1rem;
  margin: .7rem 0 0; }
.answers > div { border-left: 3px solid var(--edge); padding-left: .6rem; min-width: 0; }
.answers > .right { border-color: var(--good); }
.answers > .wrong { border-color: var(--bad); border-left-style: double; }
.answers dt { font-size: .82rem; color: var(--quiet); line-height: 1.3; }
.answers dd { margin: .15rem 0 0; }
.mark { font-weight: 600; font-size: .85rem; white-space: nowrap; }
.right > dd > .mark { color: var(--good); }
.wrong > dd > .mark { color: var(--bad); }

.chain { list-style: none; display: flex; flex-wrap: wrap; gap: .5rem 0; padding: 0; margin: 1rem 0; }
.chain li { display: flex; align-items: center; font-size: .88rem; }
.chain li + li::before { content: "\\2192"; margin: 0 .5rem; color: var(--quiet); }
.chain div { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem; padding: .3rem .6rem; }
.chain .hash { display: block; color: var(--quiet); }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
footer { margin-top: 3rem; padding-bottom: 3rem; color: var(--quiet); font-size: .9rem; }
@media (max-width: 32rem) {
  h1 { font-size: 1.5rem; }
  .plot { grid-template-rows: auto 14rem 1.5rem auto; grid-template-columns: 2.8rem minmax(0, 1fr); }
  .legend { margin-left: 0; }
  .number, .verdict { white-space: normal; }
}
@media print { * { print-color-adjust: exact; } .card, .dialog, figure { break-inside: avoid; } }
"""
