"""Events on their way to people: a webhook and the log. Knows no Dagster."""
