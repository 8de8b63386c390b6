"""From numbers to statistics, figures and the page that compares runs."""
