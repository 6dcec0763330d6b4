"""What is seen in the viewer: the page, its panel and the dress of the views."""
