"""The stages that draw candidates to label and, with an ensemble, the labelled dataset."""
