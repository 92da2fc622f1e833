"""Writes a trained network as one program that needs jax and numpy alone.

  python -m nsl_jax export --workdir=runs/photos --out=model

model/program.bin takes uint8 images of the size in model/model.json, any number
at once, and gives probabilities, on cpu, cuda and tpu:

  import jax, json, numpy
  program = jax.export.deserialize(open('model/program.bin', 'rb').read())
  probabilities = program.call(images)

"""

from collections.abc import Sequence

from nsl_jax.commands import cli, predict
from nsl_jax.data import split_file
from nsl_jax.inference import export, loading


def main(argv: Sequence[str] | None = None) -> None:
  """Writes the files."""
  parser = cli.Parser('export', __doc__)
  predict.add_network(parser)
  parser.add_argument(
    '--out', type=cli.local_path, default='model', help='the folder to write'
  )
  parser.add_argument(
    '--overwrite', action='store_true', help='write into a folder with files'
  )
  parser.add_argument(
    '--format',
    choices=('jax', 'onnx'),
    default='jax',
    help='onnx writes model.onnx besides (pip install "nsl_jax[onnx]")',
  )
  args = parser.parse_args(argv)
  export.check_folder(args.out, args.overwrite)
  network = loading.load(args.workdir, weights=args.weights, seed=args.seed)
  split = args.workdir / f'seed_{network.seed}' / 'split.npz'
  content = export.write(
    network,
    args.out,
    onnx=args.format == 'onnx',
    labeled=split_file.load_trained_on(split),
  )
  input_spec = content['input']
  shape = 'x'.join(map(str, input_spec['shape']))
  print(
    f'{content["network"]["name"]} of step {network.step}: '
    f'{input_spec["dtype"]} {shape} -> {content["output"]["meaning"]} '
    f'-> {args.out}'
  )
