"""What any page is made of: charts, numbers, marked text, templates; nothing here knows what a study is."""
