"""The audit: prompts answered, answers judged, rates with intervals, the reasoning tax, blind spots."""
