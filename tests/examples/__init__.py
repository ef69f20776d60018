"""The examples do what their READMEs say, by their own words."""
