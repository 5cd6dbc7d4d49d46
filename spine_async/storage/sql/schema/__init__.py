"""Tables, views, row conversion, migrations and queries."""
