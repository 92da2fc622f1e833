"""What methods are made of: combinators of losses and updates, two networks,
mixing, the bilevel step, and what the outputs of a network mean. No file here
knows a method or a config.
"""
