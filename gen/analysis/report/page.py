"""The words and the style of the report."""

HEADS = {
    "spectrum": "Spectrum",
    "pattern": "The grid itself",
}

ABOUT = (
    "Strided upsampling makes every P-th pixel a little different. A period is <em>detected</em> "
    "when its p-value, corrected for all tests of this page, is below 0.05; its level says how "
    "strong it is: 0 dBc would be a grid as strong as the images' own contrast, −40 dBc is one "
    "hundredth of its amplitude, −60 dBc one thousandth. Where nothing is detected, the limit says "
    "how strong a grid would have been found nine times out of ten: only weaker ones can hide. "
    "Noise, blur, sharpening and contrast change the spectrum, not the verdict."
)

# Key → alt text and caption.
CAPTIONS = {
    "levels": (
        "Level of each period in dBc with interval and detection limit",
        "<strong>Level of each period.</strong> Dot: level (none where the power does not exceed "
        "the noise). Bar: 95 % interval. Tick: the detection limit, the level that is found nine "
        "times out of ten at the least sensitive line; a weaker pattern can hide. "
        "Orange: detected; blue: not detected; gray: the reference.",
    ),
    "spectrum": (
        "Two-dimensional mean power spectrum with the lattice lines circled",
        "<strong>Measured.</strong> Mean power of luma, on the color scale of the reference if "
        "there is one. A grid shows as a single bright bin inside a circle; many grids are "
        "found that cannot be seen here.",
    ),
    "spectrum-reference": (
        "Two-dimensional mean power spectrum of the reference with the lattice lines circled",
        "<strong>Reference</strong>, on the same color scale.",
    ),
    "pattern": (
        "Mean pattern of period {period}, amplified {factor} times",
        "<strong>Period {period}</strong>, amplified ×{factor} around mid-gray, two periods each "
        "way, where the images show it best.",
    ),
    "spectrum-radial": (
        "Radial power spectrum with its 95 % band",
        "<strong>Radial.</strong> Mean power over rings, lattice left out, with its 95 % band; "
        "dashed: lattice left in. Dotted: Nyquist frequency of the axes. Gray: the reference.",
    ),
}

LOW_CONTRAST = (
    "These images have hardly any contrast: {contrast:.1f} of 255 gray levels (RMS). Levels are "
    "relative to the contrast, so even a faint pattern reads as a high level. Train longer, or "
    "check that these are the images that you meant."
)

TABLE_NOTE = (
    "p-values of lines are raw; those of the verdict are corrected for their number (Holm). "
    "Columns 95 % hold intervals; −∞ means no power at all."
)

GLOSSARY = {
    "Period": "Distance in pixels after which a grid repeats. An upsampling of stride 2 leaves 2; "
    "two of them 4.",
    "Lattice line": "A frequency (a/P, b/P) in cycles per pixel (vertical, horizontal): the only "
    "places where a grid of period P has power.",
    "Replica": "A copy of the image's own low frequencies, shifted to a lattice line. Its gain is "
    "the modulation: 1 % is −40 dB.",
    "Line": "A fixed grid, the same in every image, in gray levels RMS (of 255).",
    "Level, dBc": "Power of replica and line together, relative to the mean variance of an image "
    "(the carrier).",
    "Detection limit": "The level that would be found with 90 % power: what “not detected” means.",
    "Excess": "Power on a line over its surroundings, in dB: also sees grids whose sign changes "
    "from image to image.",
    "Trace": "Periodic change of local contrast, as depth from 0 to 1: enlarged or JPEG-coded "
    "images carry it.",
    "p-value": "How often images without any grid would give as much, by chance.",
    "Holm": "Correction that keeps the chance of any false alarm on the whole page below 5 %.",
}

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1140px; padding: 2rem 1rem 4rem; background: #fff;
  color: #202124; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header p { margin: .3rem 0; color: #5f6368; overflow-wrap: anywhere; }
h1 { margin: 0 0 .5rem; font-size: 1.6rem; line-height: 1.25; font-weight: 650;
  overflow-wrap: anywhere; }
h2 { margin: 2.6rem 0 .6rem; font-size: 1.15rem; font-weight: 650; }
p { margin: .5rem 0; max-width: 70ch; }
code { font: .85em/1.4 ui-monospace, Menlo, Consolas, monospace; }
pre { font: .8rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
code span { display: inline-block; max-width: 100%; overflow-wrap: anywhere; }
.verdict { margin-top: 1.4rem; padding: .9rem 1.1rem; border: 1px solid #e0e2e6;
  border-radius: 8px; }
.verdict ul { margin: 0; padding: 0; list-style: none; }
.verdict li { position: relative; margin: .35rem 0; padding-left: 1.5rem; }
.verdict li::before { content: ""; position: absolute; left: 0; top: .42em; width: .75em;
  height: .75em; border-radius: 50%; background: #9aa0a6; }
.verdict li.found::before { background: #d55e00; }
.verdict li.clean::before { background: #0072b2; }
.verdict .note { margin: .6rem 0 0; color: #5f6368; }
.figures { display: grid; gap: 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
figure { margin: 0; max-width: 520px; }
figure img { display: block; width: 100%; height: auto; }
figcaption { margin-top: .4rem; color: #5f6368; font-size: .88rem; line-height: 1.45; }
.samples { display: flex; flex-wrap: wrap; gap: 6px; }
.samples img { image-rendering: pixelated; height: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .8rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .25rem .38rem; text-align: right; border-bottom: 1px solid #eceef1; }
th { font-weight: 600; border-bottom-color: #9aa0a6; }
th:first-child, td:first-child { text-align: left; }
.words { padding-left: 1rem; text-align: left; white-space: normal; }
ol { margin: 0; padding-left: 1.3rem; max-width: 70ch; }
ol li { margin: .5rem 0; }
ol pre { margin: .3rem 0; padding: .45rem .7rem; border-radius: 6px; background: #f1f3f4;
  white-space: pre-wrap; overflow-wrap: anywhere; user-select: all; }
.headline { margin: 0 0 .8rem; font-size: 1.2rem; line-height: 1.4; font-weight: 650; }
.warning { padding: .6rem .9rem; border-left: 4px solid #d55e00; background: #fdf1e7; }
details { margin-top: 1rem; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem; margin: 1rem 0;
  max-width: 80ch; }
dt { font-weight: 600; }
dd { margin: 0; }
@media (max-width: 760px) {
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr));
    gap: .3rem .8rem; padding: .5rem 0; border-bottom: 1px solid #dadce0; }
  td { padding: 0; border: 0; text-align: left; }
  td:empty { display: none; }
  td::before { content: attr(data-label); display: block; color: #5f6368; font-size: .72rem; }
  td.words { grid-column: 1 / -1; padding: 0; }
}
@media (max-width: 560px) {
  body { padding-top: 1.2rem; }
  dl { display: block; }
  dd { margin: 0 0 .7rem; }
}
"""
