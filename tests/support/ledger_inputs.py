"""A result as the ledger keeps it."""


def result_of(row: str, per_seed: list[float], **changes) -> dict:
  mean = sum(per_seed) / len(per_seed)
  return {
    'row': row,
    'kind': 'run',
    'seeds': list(range(len(per_seed))),
    'score': {
      'metric': 'test_error',
      'unit': '%',
      'per_seed': per_seed,
      'mean': mean,
      'std': 0.5,
    },
    'protocol': 'last',
    'steps': 3000,
    'full_steps': 29000,
    'reduced': True,
    'device': '1 x cpu (cpu; host: 2 cores)',
    'data_note': '',
    **changes,
  }
