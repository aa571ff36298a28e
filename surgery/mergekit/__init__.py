"""mergekit's YAML: read as a recipe, and written from one.

Both tools give the same numbers (in float32, to rounding) for linear, slerp, task_arithmetic, ties, breadcrumbs,
breadcrumbs_ties and model_stock, and the same in expectation for dare_linear, dare_ties, della and della_linear, apart
from these deviations, which are wanted. "They" is mergekit 0.1.5.

- Precision: they compute most methods in `dtype`; here it is float32, and `out_dtype`, or else `dtype`, is what the
  result is stored in. A bfloat16 weight of .3 is .30078, and every step would round.
- `rescale` of dare and della: theirs restores the L1 norm of the whole delta; here what is kept is divided by its
  chance to be kept, so that the expected delta is the delta itself, as the papers have it.
- Random draws: theirs follow the order of execution; here they follow from seed, site and model, so that a shard can be
  made again alone.
- Entries of one magnitude at a cut (ties, breadcrumbs): which of them theirs keeps is up to an unstable sort; here the
  first ones in the tensor come first. Deltas of bfloat16 models have many of them (the results then differ by about
  1e-2 of their norm; with a stable sort on their side by 1e-9).
- Weighted deltas of three or more models that cancel exactly: the sign of what rounding leaves of their sum is elected,
  and theirs adds in the order of the file, here it is the order of names, so that the order of models changes nothing.
- slerp: their sums over a tensor are of float32, here of float64 (5e-7 apart on nearly parallel bfloat16 models).
- Chances of della: entries of one magnitude have different ones there, and one here.
- Negative weights are refused here: they take out what a model has learnt.
- A tensor that a model lacks: they fail, or leave it out of the result; here it stays that of `like`.
- Tensors under other names or of other shapes: they fail; here they are paired by their sites.
- Embedding rows behind the vocabulary: with `tokenizer_source` they cut them off; here they stay.
- Integer tensors: `dtype` makes them floating-point there; here they stay as they are.
- Without `base_model` the result has the config of any of their models; here that of the first.
- Filters are held against their own table of names, here against the raw names of `like`: what its files hold.
- Slices of an architecture that their table does not know: head and final norm have the settings of the first slice
  there, and of the last one here.
"""

from vlsurgery.surgery.mergekit.reading import load_recipe, read_mergekit
from vlsurgery.surgery.mergekit.writing import write_mergekit

__all__ = ["load_recipe", "read_mergekit", "write_mergekit"]
