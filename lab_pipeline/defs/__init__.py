"""The asset graph: Dagster on the outside of the method, thin. One folder for each group of assets."""
