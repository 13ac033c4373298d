"""The whole path in a few minutes: look, pretrain, measure, embed, search, and tell it on one page.

`run.py` walks the path with the same functions that the command line uses, `page.py` tells it as one
self-contained HTML file, `offer.py` opens its archive on a map, `recipe.yaml` is what is trained. Real sample
scenes are pretrained on and searched; what needs labels at many scales is measured on simulated scenes
(`swath.simulated`), and the page says so.
"""
