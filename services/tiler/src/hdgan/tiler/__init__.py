"""The stage that cuts slides into tiles and assigns their folds."""
