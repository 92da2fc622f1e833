"""What the page of an evaluation says, section by section, as HTML.

Every function takes `content`, what `evaluation.json` holds; see `page.write`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from nsl_jax.reports.evaluation import calibration, markup

Content = Mapping[str, Any]
_UNDEFINED = '–'
_NAMED = 20  # classes in a note
_TERMS = {
  'Interval of the accuracy': (
    'The 95 % Wilson score interval. It covers the choice of the images, not '
    'that of the labels or of the seed.'
  ),
  'Recall, precision, F1': (
    'Of the images of a class, the share that is predicted as it; of the '
    'images predicted as a class, the share that is of it; their harmonic '
    f'mean. “{_UNDEFINED}” means that there is nothing to divide by: recall '
    'needs an image of the class, precision a prediction of it. The macro F1 '
    'is the mean over the classes that have an F1.'
  ),
  'Confidence': 'The largest probability that the network gives to a class.',
  'Expected calibration error (ECE)': (
    f'{calibration.BINS} bins of equal width by confidence; the mean of the '
    'distance between accuracy and mean confidence in a bin, weighted by its '
    'images.'
  ),
  'Negative log-likelihood (NLL)': (
    'Mean of −log of the probability of the true class, in nats.'
  ),
  'Brier score': (
    'Mean squared distance between the probabilities and the label, summed '
    'over classes: 0 is perfect, 2 is the worst.'
  ),
}


def _percent(fraction: float | None) -> str:
  """With a space that does not break."""
  return _UNDEFINED if fraction is None else f'{100.0 * fraction:.1f}\u00a0%'


def _plural(count: int, singular: str, plural: str) -> str:
  return f'{count:,} {singular if count == 1 else plural}'


def _enumerate(names: Sequence[str]) -> str:
  """The names with commas; of many the first ones."""
  text = ', '.join(names[:_NAMED])
  omitted = len(names) - _NAMED
  return f'{text} and {omitted} more' if omitted > 0 else text


def _header(title: str, measures: Mapping[str, Any]) -> str:
  low, high = measures['accuracy_interval']
  wrong = measures['images'] - measures['correct']
  cards = {
    'Error': f'{measures["error"]:.1f}\u00a0%',
    'Balanced accuracy': f'{measures["balanced_accuracy"]:.1f}\u00a0%',
    'Macro F1': f'{measures["macro_f1"]:.3f}',
    'ECE': _percent(measures['calibration']['ece']),
    'NLL': f'{measures["nll"]:.3f}\u00a0nats',
    'Brier score': f'{measures["brier"]:.3f}',
  }
  if measures['top5_accuracy'] is not None:
    cards['Top-5 accuracy'] = f'{measures["top5_accuracy"]:.1f}\u00a0%'
  inner = ''.join(
    f'<div><dt>{name}</dt><dd>{value}</dd></div>'
    for name, value in cards.items()
  )
  return (
    f'<h1>{markup.escape(title)}</h1>\n'
    f'<p class="headline"><strong>{measures["accuracy"]:.1f}\u00a0%</strong>'
    f'<span>accuracy, 95\u00a0% interval {low:.1f} to {high:.1f}\u00a0%</span>'
    '</p>\n'
    + markup.paragraph(
      f'{_plural(measures["images"], "image", "images")} of '
      f'{_plural(len(measures["classes"]), "class", "classes")}, '
      f'{_plural(wrong, "mistake", "mistakes")}.',
      'muted',
    )
    + f'\n<dl class="cards">{inner}</dl>'
  )


def _class_table(measures: Mapping[str, Any]) -> str:
  """By recall, the lowest first; what has none comes last."""
  order = sorted(
    measures['per_class'],
    key=lambda e: (e['recall'] is None, e['recall'] or 0.0, e['f1'] or 0.0),
  )
  columns = [
    markup.Column(head, number=at > 0)
    for at, head in enumerate(
      ('Class', 'Recall', 'Precision', 'F1', 'Images', 'Predicted')
    )
  ]
  rows = [
    (
      entry['class'],
      *(_percent(entry[name]) for name in ('recall', 'precision')),
      _UNDEFINED if entry['f1'] is None else f'{entry["f1"]:.3f}',
      f'{entry["support"]:,}',
      f'{entry["predicted"]:,}',
    )
    for entry in order
  ]
  return markup.table('Every class, the lowest recall first', columns, rows)


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
  if not pairs:
    return markup.paragraph('No image is taken for one of another class.')
  columns = [
    markup.Column('True'),
    markup.Column('Predicted'),
    markup.Column('Images', number=True),
    markup.Column('Of the true', number=True),
  ]
  rows = [
    (e['true'], e['predicted'], f'{e["count"]:,}', _percent(e['share']))
    for e in pairs
  ]
  return markup.table('Classes most often confused', columns, rows)


def _images(
  entries: Sequence[Mapping[str, Any]], thumbnail: Callable[[int], Image.Image]
) -> str:
  items = []
  for entry in entries:
    true, predicted, path = (
      markup.escape(entry[name]) for name in ('true', 'predicted', 'path')
    )
    kind = 'right' if entry['correct'] else 'wrong'
    thumbnail_html = markup.thumbnail(
      thumbnail(entry['image']),
      f'{entry["path"]}: true {entry["true"]}, predicted {entry["predicted"]}',
    )
    items.append(
      f'<li><figure>{thumbnail_html}<figcaption>true <b>{true}</b><br>'
      f'predicted <b class="{kind}">{predicted}</b> '
      f'{_percent(entry["probability"])}'
      f'<span class="path">{path}</span></figcaption></figure></li>'
    )
  return '<ul class="images">' + '\n'.join(items) + '</ul>'


def _own_notes(measures: Mapping[str, Any]) -> list[str]:
  """What the numbers leave out."""
  notes = []
  if measures['without_images']:
    notes.append(
      'No image, hence no recall: '
      + _enumerate(measures['without_images'])
      + '.'
    )
  if measures['never_predicted']:
    notes.append(
      'Never predicted, hence no precision: '
      + _enumerate(measures['never_predicted'])
      + '.'
    )
  if measures['nll_floored']:
    notes.append(
      'The probability of the true class is 0 in '
      f'{_plural(measures["nll_floored"], "image", "images")}: the NLL takes '
      'the smallest number of float32 instead.'
    )
  return notes


def _facts(content: Content) -> markup.Section | None:
  rows = list(content['facts'].items())
  if not rows:
    return None
  columns = [markup.Column('What'), markup.Column('Value')]
  return markup.Section(
    'facts', 'Facts', markup.table('The run and the images', columns, rows)
  )


def _curves(content: Content, figures: Mapping[str, bytes]) -> markup.Section:
  picture = figures.get('curves.png')
  best = content['best']
  if picture is None:
    body = markup.paragraph('The run has no measured loss or error.')
  elif best is None:
    caption = 'Training loss by step; no validation error was measured'
    body = markup.picture(picture, 'Curve of the training loss.', caption)
  else:
    body = markup.picture(
      picture,
      'Curves of training loss and validation error. The lowest error is '
      f'{best["validation_error"]:.1f} % at step {best["step"]}.',
      'Training loss and validation error by step, with the step of the lowest '
      'error',
    )
  return markup.Section('curves', 'Learning curves', body)


def _classes(content: Content) -> markup.Section:
  return markup.Section('classes', 'Classes', _class_table(content['scores']))


def _confusion(
  content: Content, figures: Mapping[str, bytes]
) -> markup.Section:
  measures, pairs = content['scores'], content['confused']
  alt = (
    f'Confusion matrix of {len(measures["classes"])} classes; '
    f'{measures["accuracy"]:.1f} % of the images are on the diagonal.'
  )
  if pairs:
    true, predicted = pairs[0]['true'], pairs[0]['predicted']
    alt += f' Most often {true} is taken for {predicted}.'
  caption = (
    'Rows are true classes, columns predicted ones; colors are shares of the '
    'row'
  )
  return markup.Section(
    'confusion',
    'Confusion',
    _pair_table(pairs) + markup.picture(figures['confusion.png'], alt, caption),
  )


def _calibration(
  content: Content, figures: Mapping[str, bytes]
) -> markup.Section:
  calibration = content['scores']['calibration']
  ece, by_chance = (
    100.0 * calibration[name] for name in ('ece', 'ece_by_chance')
  )
  image = markup.picture(
    figures['reliability.png'],
    'Accuracy against confidence; the expected calibration error is '
    f'{ece:.1f} %.',
    'Above: accuracy by confidence. Below: images by confidence',
  )
  text = (
    f'The expected calibration error (ECE) is {ece:.1f} %. A network that is '
    f'right as often as it is sure has {by_chance:.1f} % on average over so '
    'many images.'
  )
  return markup.Section(
    'calibration', 'Calibration', markup.paragraph(text, 'muted') + image
  )


def _mistakes(
  content: Content, thumbnail: Callable[[int], Image.Image]
) -> markup.Section:
  body = markup.paragraph('No mistakes.')
  if content['mistakes']:
    body = _images(content['mistakes'], thumbnail)
  text = (
    'The wrong predictions with the largest probability. Look here for wrong '
    'labels, too.'
  )
  return markup.Section(
    'mistakes', 'Surest mistakes', markup.paragraph(text, 'muted') + body
  )


def _least_sure(
  content: Content, thumbnail: Callable[[int], Image.Image]
) -> markup.Section:
  text = 'The predictions with the smallest probability, right or wrong.'
  return markup.Section(
    'least-sure',
    'Least sure images',
    markup.paragraph(text, 'muted') + _images(content['least_sure'], thumbnail),
  )


def _notes(content: Content) -> markup.Section | None:
  notes = [*content['notes'], *_own_notes(content['scores'])]
  if not notes:
    return None
  items = ''.join(f'<li>{markup.escape(note)}</li>' for note in notes)
  return markup.Section('notes', 'Notes', f'<ul>{items}</ul>')


def _definitions() -> markup.Section:
  terms = ''.join(
    f'<dt>{markup.escape(name)}</dt><dd>{markup.escape(text)}</dd>'
    for name, text in _TERMS.items()
  )
  return markup.Section(
    'definitions',
    'Definitions',
    '<details><summary>How the numbers are computed</summary>'
    f'<dl class="terms">{terms}</dl></details>',
  )


def document(
  content: Content,
  figures: Mapping[str, bytes],
  thumbnail: Callable[[int], Image.Image],
) -> bytes:
  """The page as a file holds it.

  Args:
    content: what `evaluation.json` holds.
    figures: the PNG pictures by the names of their files.
    thumbnail: from the row of an image to its picture.
  """
  sections = [
    _facts(content),
    _curves(content, figures),
    _classes(content),
    _confusion(content, figures),
    _calibration(content, figures),
    _mistakes(content, thumbnail),
    _least_sure(content, thumbnail),
    _notes(content),
    _definitions(),
  ]
  header = _header(content['title'], content['scores'])
  return markup.document(
    content['title'],
    header,
    [section for section in sections if section is not None],
  )
