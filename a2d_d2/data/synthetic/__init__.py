"""A synthetic A2D release: drawn actors told apart by look, actions told apart by motion alone."""

from a2d_d2.data.synthetic.generate import make_release

__all__ = ["make_release"]
