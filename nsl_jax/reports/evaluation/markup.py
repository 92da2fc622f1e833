"""Pieces of a self-contained HTML page; every text given is escaped."""

import base64
import html
import io
import string
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

THUMBNAIL = 160  # pixels of its longer side, at most
_LOSSLESS = 64  # a thumbnail up to this size stays as sharp as it is
_TALL = 30  # a table of more rows has a scroll bar
_DOTS = 1.5  # pixels of a picture for each pixel of the page
_LEAST = 0.55  # of its natural width, before a picture scrolls
_WIDE = 1056  # wider ones have small print: they scroll and do not shrink

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1b1f24; --muted: #59636e; --line: #d5dbe1;
  --card: #f5f7f9; --accent: #0072b2; --wrong: #b34700; --right: #00704f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --text: #e4e7ea; --muted: #a3abb3; --line: #363c43;
    --card: #1e2226; --accent: #56b4e9; --wrong: #f0975a; --right: #4fc3a1;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 66rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0 0 1rem; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 0.75rem; font-size: 1.2rem; }
p { max-width: 46rem; margin: 0.5rem 0; }
a { color: var(--accent); }
.muted, figcaption, caption { color: var(--muted); }
.headline { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem;
  align-items: baseline; margin: 0; max-width: none; }
.headline strong { font-size: 2.75rem; line-height: 1.1; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin: 1.25rem 0 0;
  padding: 0; list-style: none; font-size: 0.9rem; }
dl.cards { display: grid; gap: 0.75rem; margin: 1.25rem 0 0;
  grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
dl.cards div { padding: 0.6rem 0.8rem; border: 1px solid var(--line);
  border-radius: 0.5rem; background: var(--card); }
dl.cards dt { color: var(--muted); font-size: 0.85rem; }
dl.cards dd { margin: 0; font-size: 1.2rem;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.tall { max-height: 36rem; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: var(--page); }
table { min-width: 15rem; border-collapse: collapse; font-size: 0.92rem;
  overflow-wrap: break-word; }
caption { padding: 0 0 0.4rem; text-align: left; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.75rem 0.3rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
thead th { color: var(--muted); font-size: 0.85rem; font-weight: 600;
  vertical-align: bottom; }
tbody th { font-weight: 600; }
.number { padding-left: 0.5rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
figure { margin: 0; }
.scroll + .picture { margin-top: 1.25rem; }
.picture img { display: block; width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: 0.5rem; }
.picture figcaption, .images figcaption { font-size: 0.85rem; }
.images { display: grid; gap: 1rem 0.75rem; margin: 0.75rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr));
  list-style: none; }
.images img { display: block; width: 100%; max-width: 160px; height: auto;
  aspect-ratio: 1; object-fit: contain; background: var(--card);
  border-radius: 0.25rem; }
.images img.small { image-rendering: pixelated; }
.images figcaption { margin-top: 0.3rem; line-height: 1.35; }
.images figcaption b { color: var(--text); }
.path { display: block; color: var(--muted); font-size: 0.8rem; }
.images b.wrong { color: var(--wrong); }
.images b.right { color: var(--right); }
summary { cursor: pointer; }
dl.terms dt { margin-top: 0.6rem; font-weight: 600; }
dl.terms dd { margin: 0; max-width: 46rem; color: var(--muted); }
@media (max-width: 30rem) {
  table { font-size: 0.8rem; }
  th, td { padding-right: 0.3rem; }
  thead th { font-size: 0.7rem; }
  .number { padding-left: 0.1rem; }
}
@media print { .tall { max-height: none; } }
"""
# Nothing is loaded and no script runs, whatever a name may contain.
_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")


class Column(NamedTuple):
  """The head of a column, and whether its cells are numbers."""

  head: str
  number: bool = False


class Section(NamedTuple):
  """A part of a page.

  Attributes:
    name: what a link to it says behind the `#`.
    title: its heading, a text.
    body: HTML.
  """

  name: str
  title: str
  body: str


def escape(text: object) -> str:
  """The text as it stands between tags or in an attribute."""
  return html.escape(str(text))


def document(title: str, header: str, sections: Sequence[Section]) -> bytes:
  """A page as a file holds it, with links to its sections.

  A letter that UTF-8 does not have, as in a file name that no encoding
  explains, becomes its number.

  Args:
    title: of the page, a text.
    header: HTML above the links.
    sections: in their order.
  """
  links = ''.join(
    f'<li><a href="#{section.name}">{escape(section.title)}</a></li>'
    for section in sections
  )
  body = [
    f'<header>\n{header}',
    f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n<main>',
    *(
      f'<section aria-labelledby="{section.name}">\n'
      f'<h2 id="{section.name}">{escape(section.title)}</h2>\n'
      f'{section.body}\n</section>'
      for section in sections
    ),
    '</main>',
  ]
  text = _PAGE.substitute(
    title=escape(title), style=_STYLE, body='\n'.join(body)
  )
  return text.encode('utf-8', 'backslashreplace')


def paragraph(text: str, kind: str = '') -> str:
  """A paragraph of a text."""
  return f'<p{_class(kind)}>{escape(text)}</p>'


def _class(kind: str) -> str:
  return f' class="{kind}"' if kind else ''


def scroll(label: str, inner: str, *, tall: bool = False) -> str:
  """HTML that scrolls sideways, also by keyboard, where the page is narrow.

  Args:
    label: what it is.
    inner: the HTML.
    tall: whether it also scrolls up and down.
  """
  return (
    f'<div class="scroll{" tall" if tall else ""}" role="region" tabindex="0" '
    f'aria-label="{escape(label)}">{inner}</div>'
  )


def table(
  caption: str, columns: Sequence[Column], rows: Sequence[Sequence[object]]
) -> str:
  """A table whose first cell of each row is the head of that row."""

  def cells(row: Sequence[object]) -> str:
    kinds = ['number' if column.number else '' for column in columns]
    tail = [
      f'<td{_class(kind)}>{escape(cell)}</td>'
      for kind, cell in zip(kinds[1:], row[1:])
    ]
    return f'<tr><th scope="row">{escape(row[0])}</th>{"".join(tail)}</tr>'

  head = ''.join(
    f'<th scope="col"{_class("number" if column.number else "")}>'
    f'{escape(column.head)}</th>'
    for column in columns
  )
  body = '\n'.join(cells(row) for row in rows)
  return scroll(
    caption,
    f'<table><caption>{escape(caption)}</caption>\n'
    f'<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>',
    tall=len(rows) > _TALL,
  )


def _address(kind: str, content: bytes) -> str:
  return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def picture(png: bytes, alt: str, caption: str) -> str:
  """A PNG no wider than it is drawn, which scrolls where it would be too small.

  Args:
    png: the picture.
    alt: what it shows, for those who do not see it.
    caption: below it.
  """
  with Image.open(io.BytesIO(png)) as decoded:
    width, height = decoded.size
  natural = round(width / _DOTS)
  min_width = natural if natural > _WIDE else round(_LEAST * natural)
  image = (
    f'<img src="{_address("png", png)}" width="{width}" height="{height}" '
    f'alt="{escape(alt)}" style="max-width:{natural}px;'
    f'min-width:{min_width}px">'
  )
  return (
    f'<figure class="picture">{scroll(caption, image)}'
    f'<figcaption>{escape(caption)}</figcaption></figure>'
  )


def thumbnail(image: Image.Image, alt: str) -> str:
  """The `img` of an image, made smaller if it is larger than 160 pixels.

  Args:
    image: of any mode with 8 bits a channel; what is transparent becomes white.
    alt: what it shows, for those who do not see it.
  """
  if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  image = image.convert('RGB')
  image.info.clear()  # a color profile may be larger than the picture
  image.thumbnail((THUMBNAIL, THUMBNAIL))
  small = max(image.size) <= _LOSSLESS
  kind = 'png' if small else 'jpeg'
  buffer = io.BytesIO()
  image.save(buffer, format=kind, **({} if small else {'quality': 80}))
  width, height = image.size
  return (
    f'<img{_class("small" if small else "")} '
    f'src="{_address(kind, buffer.getvalue())}" '
    f'width="{width}" height="{height}" alt="{escape(alt)}">'
  )
