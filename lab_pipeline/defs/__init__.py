"""The asset graph: a thin layer of Dagster around the method, with one folder for each group of assets."""
