"""Measures a trained network on labeled images, and writes a report.

  python -m nsl_jax evaluate --workdir=runs/photos --images=photos/test

The images lie in <class>/... or beside a labels.csv with the columns path and
label; classes are matched by name. The report is a folder: report.html (one
page that needs no network), evaluation.json, and the figures as PNG. The exit
status is 0, or 64 + the number of files that cannot be read (at most 127).
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from nsl_jax import errors, files, progress
from nsl_jax.commands import cli, predict
from nsl_jax.data import listing, pictures, resize, split_file
from nsl_jax.inference import loading, predictor
from nsl_jax.reports.evaluation import page
from nsl_jax.training import metrics_log, workdir as workdir_lib


def _facts(
  network: predictor.Predictor, workdir: files.Path, images: pathlib.Path
) -> dict[str, str]:
  config, data = network.config, network.config.data
  height, width, channels = network.facts.image_shape
  facts = {
    'Images': str(images),
    'Run': str(workdir),
    'Method': config.method.name,
    'Network': config.model.name,
    'Trained on': f'{data.labeled:,} labeled images of {data.name}',
    'Validation images': f'{data.validation:,}',
    'Image size': f'{height}x{width} {"gray" if channels == 1 else "color"}',
    'Weights': f'{network.weights}, step {network.step:,} of {config.steps:,}',
    'Seed': str(network.seed),
  }
  result = workdir / f'seed_{network.seed}' / 'result.json'
  if result.exists():
    seconds = workdir_lib.read_json(result).get('wall_time_s')
    if seconds:
      facts['Training time'] = f'{seconds / 60:.1f} minutes'
  return facts


def _seen(
  predictions: Sequence[predictor.Read], split: files.Path
) -> Iterator[str]:
  """A note on images that the run, or one that it started from, has used with
  their labels.
  """
  validated = split_file.load_codes(split).get('validation', frozenset())
  labeled, validation = (
    sum(prediction.code in codes for prediction in predictions)
    for codes in (split_file.load_trained_on(split), validated)
  )
  if labeled or validation:
    yield (
      f'{labeled:,} of the {len(predictions):,} images were trained on with '
      f'their label and {validation:,} held out for validation: the accuracy '
      'is not that of new images'
    )


def main(argv: Sequence[str] | None = None) -> None:
  """Predicts the images and writes the report."""
  parser = cli.Parser('evaluate', __doc__)
  predict.add_network(parser)
  parser.add_argument(
    '--images',
    type=cli.local_path,
    required=True,
    help='the folder of labeled images',
  )
  parser.add_argument(
    '--out',
    type=cli.path_of('--out'),
    help='the folder to write (default: evaluation/<name of images> in the '
    'work folder)',
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='replace an earlier report'
  )
  args = parser.parse_args(argv)
  network = loading.load(args.workdir, weights=args.weights, seed=args.seed)
  if not network.classes:
    raise errors.UserError(
      f'{args.workdir} finds points: evaluate is for classes; use predict'
    )
  if network.facts.of_features:
    raise errors.UserError(
      f'{args.workdir} is for features: evaluate is for pictures; use predict '
      'with an .npz file of x'
    )
  out = args.out or args.workdir / 'evaluation' / args.images.resolve().name
  if (out / page.NUMBERS).exists() and not args.overwrite:
    raise errors.UserError(
      f'{out} has a report: name another --out, or add --overwrite'
    )
  paths, labels, skipped = listing.scan_labeled(args.images, network.classes)
  files.make_folder(out, '--out')
  predictions = list(
    progress.progress(
      network.read(paths, args.images),
      total=len(paths),
      unit='image',
      delay=2.0,
    )
  )
  readable = [
    row
    for row, prediction in enumerate(predictions)
    if prediction.outputs is not None
  ]
  if not readable:
    raise errors.UserError(
      f'none of the {len(predictions):,} images of {args.images} can be read '
      f'({predictions[0].path}: {predictions[0].error}): replace them'
    )
  damaged = [
    f'{prediction.path}: {prediction.error}'
    for prediction in predictions
    if prediction.error
  ]
  num_with_fact = {
    fact: sum(fact in prediction.facts for prediction in predictions)
    for fact in pictures.FACTS
  }
  seed_folder = args.workdir / f'seed_{network.seed}'
  notes = [
    *_seen(predictions, seed_folder / 'split.npz'),
    *pictures.counted(num_with_fact),
    *listing.skipped_lines(skipped),
  ]
  if damaged:
    notes.append(
      f'{len(damaged):,} files cannot be read: ' + errors.shown(damaged, 20)
    )
  readable_paths = [predictions[row].path for row in readable]
  content = page.write(
    out,
    title=f'{network.config.method.name} on {args.images}',
    facts=_facts(network, args.workdir, args.images),
    classes=network.classes,
    labels=labels[readable],
    probabilities=np.stack([predictions[row].outputs for row in readable]),
    paths=readable_paths,
    thumbnail=lambda row: resize.thumbnail(args.images / readable_paths[row]),
    metric_lines=metrics_log.read(seed_folder / 'metrics.jsonl'),
    notes=notes,
  )
  for line in notes:
    print(line, file=sys.stderr)
  scores = content['scores']
  low, high = scores['accuracy_interval']
  print(
    f'accuracy {scores["accuracy"]:.2f} % (95 % interval {low:.2f} to '
    f'{high:.2f}), {scores["images"]:,} images -> {out / page.PAGE}'
  )
  if damaged:
    raise errors.UnreadableFiles(
      f'{len(damaged):,} of {len(predictions):,} files could not be read: '
      + errors.shown(damaged),
      len(damaged),
    )
