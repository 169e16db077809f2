"""What the stages do for one arm, as plain functions that pipelines and ``api`` call."""
