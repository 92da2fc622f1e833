r"""DNLL on CIFAR-10.

python -m nsl_jax.main --config=configs/cifar10_dnll.py:labels=4000,seeds=3

Paper, accuracy in %: 13-layer network (model=cnn13) DN-T1-1 ... -3: 87.87,
90.65, 92.06 with 1,000, 2,000, 4,000 labels. WRN-28-2: DN-T2-1 and -2: 92.03,
94.29 with 1,000, 4,000. With 4,000 labels DN-T5 varies m and the selection
(EP 92.9, 93.76, 94.01, 93.78; EPM 93.12, 93.84, 94.29, 93.77 for m = 1 ... 4)
and DN-T6 omits the other network (92.78 with EP, 93.03 with EPM).
Arguments: labels=4000, model=wrn or cnn13, selection=epm or ep, count=3,
unsupervised=both, cross or self; quick=true for a quarter of the steps.
"""

from configs import common, family_d

_ROWS = {
  (1000, 'cnn13', 'epm', 3, 'both'): 'DN-T1-1',
  (2000, 'cnn13', 'epm', 3, 'both'): 'DN-T1-2',
  (4000, 'cnn13', 'epm', 3, 'both'): 'DN-T1-3',
  (1000, 'wrn', 'epm', 3, 'both'): 'DN-T2-1',
  (4000, 'wrn', 'ep', 3, 'self'): 'DN-T6-1',
  (4000, 'wrn', 'epm', 3, 'self'): 'DN-T6-2',
  **{
    (4000, 'wrn', s, m, 'both'): f'DN-T5-{s.upper()}{m}'
    for s in ('ep', 'epm')
    for m in (1, 2, 3, 4)
  },
}
_ROWS[4000, 'wrn', 'ep', 3, 'both'] += ' DN-T6-3'
_ROWS[4000, 'wrn', 'epm', 3, 'both'] += ' DN-T2-2 DN-T6-4'


def get_config(arg=None):
  arg = common.parse(
    arg, labels=4000, model='wrn', selection='epm', count=3, unsupervised='both'
  )
  config = family_d.family_d('cifar10', arg, _ROWS)
  return common.finish(config, arg)
