"""Actions: ordinary CWL documents for what astronomers often do, to be used, opened and changed."""
