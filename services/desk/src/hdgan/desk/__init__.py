"""Everything a person looks at: annotations in and out, previews and the report."""
