"""What ties the stages to Kedro and MLflow: configuration, datasets, tracking, error lines."""
