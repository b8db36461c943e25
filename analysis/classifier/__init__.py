"""Classifier: what decoded images show, as a network sees it that never saw the model.

`classifier.py` trains and scores it on real images; `interventions.py` measures what each layer changes,
`arithmetic_success.py` whether a − b + c shows what it should, and `edit_success.py` whether an edit changes its
attribute alone. Import from these files: this package itself loads nothing.
"""
