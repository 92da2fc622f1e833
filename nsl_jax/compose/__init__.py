"""Building blocks of methods: combinators of losses and updates, two networks,
mixing, the bilevel step, and tasks. No file here imports a method or a config.
"""
